package gpu

import (
	"os"
	"path/filepath"
	"testing"
)

// tree writes small files, by their paths below a new folder. A path that ends with @ is a
// link to its text.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		link := path[len(path)-1] == '@'
		if link {
			path = path[:len(path)-1]
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if link {
			if err := os.Symlink(text, path); err != nil {
				t.Skip(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCountPCI(t *testing.T) {
	files := map[string]string{}
	device := func(bus, vendor, class, driver string) {
		dir := "bus/pci/devices/" + bus + "/"
		files[dir+"vendor"], files[dir+"class"] = vendor+"\n", class+"\n"
		if driver != "" {
			files[dir+"driver@"] = "../../../bus/pci/drivers/" + driver
		}
	}
	device("0000.1a.00.0", "0x10de", "0x030200", "nvidia") // a colon is no part of a file's name everywhere
	device("0000.1b.00.0", "0x10de", "0x030000", "nvidia")
	device("0000.1c.00.0", "0x10de", "0x030200", "")         // no driver is bound: it counts
	device("0000.1b.00.1", "0x10de", "0x040300", "snd_hda")  // its sound device
	device("0000.06.00.0", "0x10de", "0x068000", "nvidia")   // an NVSwitch
	device("0000.1d.00.0", "0x10de", "0x030200", "vfio-pci") // handed to a virtual machine
	device("0000.1e.00.0", "0x10de", "0x030000", "nouveau")
	device("0000.1a.00.4", "0x10de", "0x030200", "nvidia")
	files["bus/pci/devices/0000.1a.00.4/physfn@"] = "../0000.1a.00.0" // a virtual function
	device("0000.03.00.0", "0x1002", "0x038000", "amdgpu")
	device("0000.00.1f.0", "0x8086", "0x060100", "")
	files["bus/pci/devices/0000.ff.00.0/vendor"] = "garbage"
	if n := CountPCI(tree(t, files), vendorNVIDIA); n != 3 {
		t.Errorf("%d GPUs, want 3", n)
	}
	if n := CountPCI(t.TempDir(), vendorNVIDIA); n != 0 {
		t.Errorf("%d GPUs without sysfs", n)
	}
}
