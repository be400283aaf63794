"""One file a published claim: runs it small and sets the paper's numbers beside ours."""
