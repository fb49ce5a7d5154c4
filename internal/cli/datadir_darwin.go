package cli

import "os"

// dataDir returns the directory for this user's data.
func dataDir() (string, error) { return os.UserConfigDir() } // ~/Library/Application Support
