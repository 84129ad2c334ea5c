"""Writers of frozen networks in other forms, one file a target, and the C runtime that runs and is shipped."""
