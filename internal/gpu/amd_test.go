//go:build unix

package gpu

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"
)

// machine builds the files of sysfs and procfs.
type machine map[string]string

// card adds a GPU at sysfs path class/drm/<name>/device.
func (m machine) card(name, bus, vendor string, files map[string]string) {
	dir := "sys/class/drm/" + name + "/device/"
	m[dir+"vendor"] = vendor + "\n"
	m[dir+"uevent"] = "DRIVER=amdgpu\nPCI_CLASS=38000\nPCI_ID=1002:74A1\nPCI_SLOT_NAME=" + bus + "\n"
	for name, text := range files {
		m[dir+name] = text
	}
}

// opens adds a process that has a render node open as fd.
func (m machine) opens(pid, fd, info string) {
	m["proc/"+pid+"/fd/"+fd+"@"] = "/dev/dri/renderD128"
	m["proc/"+pid+"/fdinfo/"+fd] = "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\n" + info
}

func (m machine) reader(t *testing.T) *AMD {
	root := tree(t, m)
	return &AMD{Sysfs: root + "/sys", Procfs: root + "/proc"}
}

var (
	mi300x = map[string]string{
		"product_name": "AMD Instinct MI300X OAM\n", "unique_id": "a1b2c3d4e5f60718\n", "mem_info_vram_total": "206141652992\n", "mem_info_vram_used": "104857600000\n",
		"mem_info_gtt_total": "1081999360000\n", "gpu_busy_percent": "97\n", "gpu_metrics": "\x00\x02\x01\x05", "ras/umc_err_count": "ue: 0\nce: 7\n",
		"hwmon/hwmon3/temp1_input": "58000\n", "hwmon/hwmon3/temp2_input": "71000\n", "hwmon/hwmon3/temp2_crit": "100000\n", "hwmon/hwmon3/power1_input": "512000000\n",
	}
	radeon = map[string]string{
		"mem_info_vram_total": "17163091968\n", "mem_info_vram_used": "1073741824\n", "mem_info_gtt_total": "33554432000\n", "gpu_busy_percent": "3\n",
		"gpu_metrics": "\x78\x00\x01\x03", "hwmon/hwmon1/temp1_input": "40000\n", "hwmon/hwmon1/power1_average": "31000000\n",
	}
	strix = map[string]string{
		"mem_info_vram_total": "536870912\n", "mem_info_vram_used": "260046848\n", "mem_info_gtt_total": "66571993088\n", "mem_info_gtt_used": "40000000000\n",
		"gpu_busy_percent": "88\n", "gpu_metrics": "\x08\x01\x03\x00", "hwmon/hwmon5/temp1_input": "52000\n", "hwmon/hwmon5/power1_average": "65012000\n",
	}
)

// with returns files with others in place of them.
func with(files map[string]string, pairs ...string) map[string]string {
	files = maps.Clone(files)
	for i := 0; i+1 < len(pairs); i += 2 {
		files[pairs[i]] = pairs[i+1]
	}
	return files
}

func TestAMD(t *testing.T) {
	const (
		instinct = "0 GPU-a1b2c3d4e5f60718 AMD Instinct MI300X OAM at 0000:75:00.0, 196592 = 100000 used + 0 reserved + 96592 free, 97 %, 58 °C, 512000 mW\n"
		onCard   = " at 0000:03:00.0, 16368 = 1024 used + 0 reserved + 15344 free, 3 %, 40 °C, 31000 mW\n"
	)
	for _, c := range []struct {
		name  string
		build func(m machine)
		want  string
	}{
		{"an Instinct", func(m machine) { m.card("card1", "0000:75:00.0", "0x1002", mi300x) }, instinct},
		{
			"a Radeon without name and id, a connector, and a card of another vendor", func(m machine) {
				m.card("card0", "0000:03:00.0", "0x1002", radeon)
				m.card("card0-DP-1", "0000:03:00.0", "0x1002", nil)
				m.card("card1", "0000:01:00.0", "0x10de", nil)
			},
			"0 amdgpu-0000:03:00.0 AMD GPU 1002:74a1" + onCard,
		},
		{
			"two: the address decides their order", func(m machine) {
				m.card("card0", "0000:75:00.0", "0x1002", mi300x)
				m.card("card1", "0000:03:00.0", "0x1002", radeon)
			},
			"0 amdgpu-0000:03:00.0 AMD GPU 1002:74a1" + onCard + "1" + instinct[1:],
		},
		{
			"an APU with little memory of its own: it takes the machine's", func(m machine) {
				m.card("card0", "0000:c5:00.0", "0x1002", strix)
				m.opens("900", "5", "drm-pdev:\t0000:c5:00.0\ndrm-client-id:\t5\ndrm-memory-vram:\t102400 KiB\ndrm-memory-gtt: \t38912000 KiB\n")
			},
			"0 amdgpu-0000:c5:00.0 AMD GPU 1002:74a1 at 0000:c5:00.0, unified, 88 %, 52 °C, 65012 mW\npid 900 on amdgpu-0000:c5:00.0, 38100\n",
		},
		{
			"an APU whose firmware sets aside 96 GiB: they are its own", func(m machine) {
				m.card("card0", "0000:c5:00.0", "0x1002", with(strix, "mem_info_vram_total", "103079215104", "mem_info_gtt_total", "16000000000"))
			},
			"0 amdgpu-0000:c5:00.0 AMD GPU 1002:74a1 at 0000:c5:00.0, 98304 = 248 used + 0 reserved + 98056 free, 88 %, 52 °C, 65012 mW\n",
		},
		{
			"processes: each client once, the resident memory before the old figure", func(m machine) {
				m.card("card0", "0000:03:00.0", "0x1002", radeon)
				m.opens("700", "10", "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t41\ndrm-memory-vram:\t512000 KiB\n")
				m.opens("700", "11", "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t41\ndrm-memory-vram:\t512000 KiB\n") // a second file of the same client
				m.opens("700", "12", "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t42\ndrm-memory-vram:\t1024 KiB\n")
				m.opens("701", "10", "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t41\ndrm-memory-vram:\t512000 KiB\n") // inherited from 700
				m.opens("80", "4", "drm-pdev:\t0000:03:00.0\ndrm-client-id:\t43\ndrm-memory-vram:\t300 MiB\ndrm-total-vram:\t400 MiB\ndrm-resident-vram:\t200 MiB\n")
				m.opens("81", "4", "drm-pdev:\t0000:99:00.0\ndrm-client-id:\t44\ndrm-memory-vram:\t300 MiB\n") // of a GPU that is not there
				m["proc/82/fd/3@"] = "/dev/null"
				m["proc/82/fdinfo/3"] = "pos:\t0\n"
				m["proc/self/status"] = ""
			},
			"0 amdgpu-0000:03:00.0 AMD GPU 1002:74a1" + onCard + "pid 80 on amdgpu-0000:03:00.0, 200\npid 700 on amdgpu-0000:03:00.0, 501\n",
		},
		{
			"memory errors", func(m machine) {
				m.card("card0", "0000:75:00.0", "0x1002", with(mi300x, "ras/umc_err_count", "ue: 2\nce: 7\n"))
			},
			instinct + "  degraded, ecc: uncorrectable memory errors (2 since the driver was loaded) -> reset\n",
		},
		{
			"memory errors as newer kernels count them", func(m machine) {
				f := with(mi300x, "ras/aca_umc", "ue: 1\nce: 0\nde: 0\n")
				delete(f, "ras/umc_err_count")
				m.card("card0", "0000:75:00.0", "0x1002", f)
			},
			instinct + "  degraded, ecc: uncorrectable memory errors (1 since the driver was loaded) -> reset\n",
		},
		{
			"too hot at the junction", func(m machine) {
				m.card("card0", "0000:75:00.0", "0x1002", with(mi300x, "hwmon/hwmon3/temp2_input", "101000"))
			},
			instinct + "  degraded, throttle: slower because of heat\n",
		},
		{
			"one that does not answer", func(m machine) {
				m.card("card0", "0000:03:00.0", "0x1002", with(radeon, "mem_info_vram_used", "", "hwmon/hwmon1/temp1_input", "", "hwmon/hwmon1/power1_average", "", "gpu_busy_percent", ""))
			},
			"0 amdgpu-0000:03:00.0 AMD GPU 1002:74a1 at 0000:03:00.0, unread: mem_info_vram cannot be read\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine{"sys/module/amdgpu/version": "6.10.5\n", "proc/1/comm": "init\n"}
			c.build(m)
			r, err := m.reader(t).Read(t.Context())
			if err != nil || r.Partial != nil || r.ProcsErr != nil || r.Driver != "6.10.5" {
				t.Errorf("error %v, partial %v, of processes %v, driver %q", err, r.Partial, r.ProcsErr, r.Driver)
			}
			if got := told(r); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
	if _, err := (machine{"sys/class/drm/version": "drm 1.1.0"}).reader(t).Read(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("no GPU: %v", err)
	}
	if _, err := (machine{}).reader(t).Read(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("no sysfs: %v", err)
	}
}

// A call that hangs in the driver cannot be ended. It is left behind, and no second one runs
// beside it.
func TestCallThatHangs(t *testing.T) {
	var c call
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	release := make(chan struct{})
	if _, err := c.do(ctx, func() (Reading, error) { <-release; return Reading{}, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it hangs: %v", err)
	}
	never := func() (Reading, error) { t.Error("a second call beside it"); return Reading{}, nil }
	if _, err := c.do(t.Context(), never); !says(err, "still hangs") {
		t.Errorf("beside it: %v", err)
	}
	close(release)
	<-c.hangs
	if r, err := c.do(t.Context(), func() (Reading, error) { return Reading{Driver: "x"}, nil }); err != nil || r.Driver != "x" {
		t.Errorf("after it: %v", err)
	}
}
