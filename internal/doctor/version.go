package doctor

import (
	"cmp"
	"fmt"
	"strings"
)

// semver is a version of nats-server.
type semver struct {
	major, minor, patch int
	pre                 bool // a preview or release candidate: less than the release
}

func parseVersion(s string) (v semver, ok bool) {
	s = strings.TrimPrefix(s, "v")
	s, _, _ = strings.Cut(s, "+")
	s, pre, _ := strings.Cut(s, "-")
	v.pre = pre != ""
	var rest string
	n, _ := fmt.Sscanf(s, "%d.%d.%d%s", &v.major, &v.minor, &v.patch, &rest)
	return v, n == 3
}

func (v semver) less(o semver) bool {
	c := cmp.Or(cmp.Compare(v.major, o.major), cmp.Compare(v.minor, o.minor), cmp.Compare(v.patch, o.patch))
	return c < 0 || c == 0 && v.pre && !o.pre
}

var (
	// Before it, the expiry of a key was not reported reliably.
	required = semver{2, 11, 2, false}
	// Before it, fixes to TTLs and to the compare-and-set of a key are missing.
	advised = semver{2, 14, 8, false}
	// Its wheel of per-message TTLs grows without bound.
	leaking = semver{2, 15, 0, false}
)

func version(s string) Finding {
	f := Finding{Check: CheckVersion}
	v, ok := parseVersion(s)
	switch {
	case !ok:
		f.Level, f.What, f.Do = Warn, fmt.Sprintf("the server reports the version %q", s), "hivebeat is tested with nats-server 2.11.2 and newer"
	case v.less(required):
		f.Level, f.What, f.Do = Fail, "nats-server "+s+" is too old: 2.11.2 is required", "upgrade to 2.14.8 or newer, but not to 2.15.0"
	case v.major == leaking.major && v.minor == leaking.minor && v.patch == leaking.patch:
		f.Level, f.What, f.Do = Warn, "nats-server "+s+" leaks memory with every key that has a TTL", "upgrade to 2.15.1 or newer"
	case v.less(advised):
		f.Level, f.What, f.Do = Warn, "nats-server "+s+" works, but lacks fixes to TTLs", "upgrade to 2.14.8 or newer, but not to 2.15.0"
	default:
		f.Level, f.What = OK, "nats-server "+s
	}
	return f
}
