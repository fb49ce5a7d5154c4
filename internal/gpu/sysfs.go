package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	// Package os would also offer each file to its poller: three times the calls, for
	// hundreds of files on a machine with many devices.
	fd, err := syscall.Open(filepath.Join(dir, name), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = syscall.Close(fd) }()
	var b [4096]byte // the kernel gives such a file at once, and in a page
	for {
		n, err := syscall.Read(fd, b[:])
		switch {
		case err == nil:
			return strings.TrimSpace(string(b[:max(0, n)]))
		case !errors.Is(err, syscall.EINTR):
			return ""
		}
	}
}

// sysNumber returns the number in such a file, decimal or with 0x.
func sysNumber(dir, name string) (uint64, bool) {
	n, err := strconv.ParseUint(sysText(dir, name), 0, 64)
	return n, err == nil
}
