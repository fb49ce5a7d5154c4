package gpu

import (
	"regexp"
	"strings"
)

var pciAddress = regexp.MustCompile(`^0*([0-9a-f]{1,8}):([0-9a-f]{2}:[0-9a-f]{2})(\.[0-9a-f])?$`)

// NormalBus returns a PCI address as sysfs writes it, such as 0000:1a:00.0. It takes the
// forms of nvidia-smi (00000000:1A:00.0) and of the kernel log (PCI:0000:1a:00); anything
// else is empty.
func NormalBus(s string) string {
	m := pciAddress.FindStringSubmatch(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "pci:"))
	if m == nil {
		return ""
	}
	domain, function := m[1], m[3]
	if function == "" {
		function = ".0"
	}
	return strings.Repeat("0", max(0, 4-len(domain))) + domain + ":" + m[2] + function
}
