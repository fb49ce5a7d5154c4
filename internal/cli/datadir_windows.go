package cli

import "os"

// dataDir returns the directory for this user's data, which does not roam.
func dataDir() (string, error) { return os.UserCacheDir() } // %LocalAppData%
