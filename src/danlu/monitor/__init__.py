"""Is live traffic still what the model was tested on? Drift, estimated accuracy, and alarms at a stated rate."""
