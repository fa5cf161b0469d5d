"""Search: trials of settings that Optuna proposes, of which the bad ones end early, on one machine or several."""
