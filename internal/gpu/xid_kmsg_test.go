//go:build linux

package gpu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The kernel log is a pipe here, which a read waits for in the same way.
func TestKernelLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsg")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan Incident, 10), make(chan error, 1)
	smi := NewSMI("")
	smi.Kmsg = path
	go func() { ended <- smi.Watch(ctx, func(in Incident) { got <- in }) }()
	_, err = log.WriteString("6,1,10,-;usb 1-1: new device\n SUBSYSTEM=usb\n" +
		"3,2,20,-;NVRM: Xid (PCI:0000:1a:00): 31, pid=4711, name=vllm, MMU Fault\n" +
		"3,3,30,-;NVRM: Xid (PCI:0000:1b:00): 79, pid=0, GPU has fallen off the bus.\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0000:1a:00.0 4711 XID 31: MMU Fault", "0000:1b:00.0 0 failing"} {
		select {
		case in := <-got:
			s := in.Bus + " " + strconv.FormatUint(in.PID, 10) + " " + in.Note + string(in.Fault.State)
			if s != want {
				t.Errorf("got %s, want %s", s, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing came")
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestKernelLogThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if err := (KernelLog{Path: filepath.Join(dir, "none")}).Watch(t.Context(), nil); !errors.Is(err, ErrNone) {
		t.Errorf("no kernel log: %v", err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may read every file")
	}
	path := filepath.Join(dir, "kmsg")
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := (KernelLog{Path: path}).Watch(t.Context(), nil); !says(err, "CAP_SYSLOG") {
		t.Errorf("one that may not be read: %v", err)
	}
}
