"""An engine as processes: started, guarded, probed, ended."""
