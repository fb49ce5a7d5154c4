package cli

import "os"

// dataDir returns where programs keep data of this user that does not roam.
func dataDir() (string, error) { return os.UserCacheDir() } // %LocalAppData%
