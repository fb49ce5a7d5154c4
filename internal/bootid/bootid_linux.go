package bootid

import (
	"os"
	"strings"
)

func namespace() string { return from("/proc") }

// from reads both ids below proc. If a sandbox hides either, it returns "": the boot id
// alone would make two containers look like one.
func from(proc string) string {
	boot, err := os.ReadFile(proc + "/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	link, err := os.Readlink(proc + "/self/ns/pid") // pid:[4026531836]
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(boot))
	ns, ok := strings.CutPrefix(link, "pid:[")
	ns, closed := strings.CutSuffix(ns, "]")
	if !ok || !closed || id == "" || ns == "" || len(id)+len(ns) > 100 {
		return ""
	}
	return id + "/" + ns
}
