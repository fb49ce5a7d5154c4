//go:build e2e

package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A Disk is a small file system that a test can fill.
type Disk struct {
	tb  testing.TB
	Dir string
}

// SmallDisk mounts a disk of that size (48m) until the test ends. It skips the test if that
// is not possible.
func SmallDisk(tb testing.TB, size string) *Disk {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("a small disk needs root")
	}
	d := &Disk{tb: tb, Dir: tb.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "hivebeat-e2e", d.Dir).CombinedOutput(); err != nil {
		tb.Skipf("mount: %v: %s", err, out)
	}
	tb.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", d.Dir).CombinedOutput(); err != nil {
			tb.Errorf("umount: %v: %s", err, out)
		}
	})
	return d
}

func (d *Disk) ballast() string { return filepath.Join(d.Dir, "ballast") }

// Fill fills the disk with one file.
func (d *Disk) Fill() {
	d.tb.Helper()
	f, err := os.Create(d.ballast())
	if err != nil {
		d.tb.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		n, err := f.Write(make([]byte, size))
		if err != nil && n == 0 {
			size /= 2
		}
	}
}

// Free removes the file of Fill.
func (d *Disk) Free() {
	d.tb.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.tb.Fatal(err)
	}
}
