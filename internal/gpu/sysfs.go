package gpu

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PCI vendors.
const (
	vendorNVIDIA = 0x10de
	vendorAMD    = 0x1002
)

// CountPCI returns how many display controllers and accelerators of a vendor are on the PCI bus,
// whether or not a driver answers for them; 0 if sysfs cannot be read. sysfs is where it is
// mounted, /sys if it is empty. A device that is handed to a virtual machine (vfio-pci and
// the like), bound to nouveau or radeon, or a virtual function does not count: the vendor's
// driver here is not meant to have it. A container sees all devices of its machine here, and may be given
// only some of them.
func CountPCI(sysfs string, vendor uint64) (n int) {
	if sysfs == "" {
		sysfs = "/sys"
	}
	root := filepath.Join(sysfs, "bus/pci/devices")
	list, err := os.ReadDir(root)
	if err != nil {
		return 0
	}
	for _, e := range list {
		dev := filepath.Join(root, e.Name())
		if v, ok := sysNumber(dev, "vendor"); !ok || v != vendor {
			continue
		}
		switch class, _ := sysNumber(dev, "class"); class >> 8 {
		case 0x0300, 0x0302, 0x0380, 0x1200: // VGA, 3D, other display; accelerator, as Instinct cards are
		default:
			continue
		}
		if _, err := os.Lstat(filepath.Join(dev, "physfn")); err == nil {
			continue
		}
		driver, _ := os.Readlink(filepath.Join(dev, "driver"))
		switch filepath.Base(driver) {
		case "vfio-pci", "pci-stub", "pciback", "xen-pciback", "nouveau", "radeon":
			continue
		}
		n++
	}
	return n
}

// sysText returns the text of a small file of sysfs or procfs; empty if it cannot be read.
func sysText(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// sysNumber returns the number in such a file, decimal or with 0x.
func sysNumber(dir, name string) (uint64, bool) {
	n, err := strconv.ParseUint(sysText(dir, name), 0, 64)
	return n, err == nil
}
