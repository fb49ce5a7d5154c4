package cli

import "os"

// dataDir returns where programs keep data of this user.
func dataDir() (string, error) { return os.UserConfigDir() } // ~/Library/Application Support
