"""Jobs: what is asked of them, whether it can be met, what they are told, what they have done."""
