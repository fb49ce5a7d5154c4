//go:build !windows

package cli

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Ctrl-C also ends a tee that reads the output. The shutdown is not cut short.
func TestNobodyReadsTheWayOut(t *testing.T) {
	bin, err := exec.LookPath("hivebeat") // this test binary: see TestMain
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command(bin, "up", "--demo", "--port", "0")
	cmd.Stdout, cmd.Stderr = write, write
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, "HOME="+temp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	_ = read.SetReadDeadline(time.Now().Add(patience))
	up := false
	for lines := bufio.NewScanner(read); !up && lines.Scan(); {
		up = strings.Contains(lines.Text(), "Ctrl-C stops it")
	}
	if files, err := os.ReadDir(temp); !up || err != nil || len(files) == 0 {
		t.Fatalf("up %v, with %v in its directory, %v", up, files, err)
	}
	read.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if files, err := os.ReadDir(temp); err != nil || len(files) > 0 {
		t.Errorf("it leaves %v, %v", files, err)
	}
}
