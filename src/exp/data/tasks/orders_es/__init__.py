"""Spanish purchase orders in free text -> canonical JSON: shipped splits and their generator."""
