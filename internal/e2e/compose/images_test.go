//go:build e2e

package compose

import (
	"archive/tar"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A stand-in is an image that is built here under the name of a base image, for machines
// that cannot reach a registry. The Dockerfile and the compose file are used unchanged, and
// cannot see the difference. An image with such a name that is not a stand-in is the real one:
// it is used and left alone.

// standInLabel marks our stand-ins; its value identifies their content.
const standInLabel = "org.hivebeat.stand-in"

// rootfs is a tar archive of a file system that is being built.
type rootfs struct {
	w   *tar.Writer
	err error
}

func (r *rootfs) add(h *tar.Header, content io.Reader) {
	if r.err != nil {
		return
	}
	h.ModTime = time.Unix(0, 0)
	if r.err = r.w.WriteHeader(h); r.err == nil && content != nil {
		_, r.err = io.Copy(r.w, content)
	}
}

func (r *rootfs) dir(name string, mode int64, owner int) {
	r.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner}, nil)
}

func (r *rootfs) text(name string, mode int64, content string) {
	r.add(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}, strings.NewReader(content))
}

func (r *rootfs) file(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		r.err = errors.Join(r.err, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		r.err = errors.Join(r.err, err)
		return
	}
	r.add(&tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size()}, f)
}

// tree copies a folder, without the paths that skip returns true for.
func (r *rootfs) tree(name, from string, skip func(rel string, d fs.DirEntry) bool) {
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || r.err != nil {
			return errors.Join(err, r.err)
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case rel != "." && skip(rel, d):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
			r.dir(path.Join(name, rel), 0o755, 0)
		case d.Type().IsRegular():
			r.file(path.Join(name, rel), p)
		}
		return nil
	})
	r.err = errors.Join(r.err, err)
}

// applets are the busybox commands that images with a shell have and that we need.
var applets = []string{"sh", "ash", "cat", "chmod", "chown", "cp", "echo", "env", "false", "id", "ls", "mkdir", "mv", "ps", "pwd", "rm", "sleep", "true", "uname", "wget"}

// alpine adds what our stand-ins with a shell have in common: busybox and its commands, the two
// folders that are writable for all users, and users.
func (r *rootfs) alpine(busybox string) {
	for _, d := range []string{"bin", "etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin", "usr/local", "usr/local/bin", "var", "root", "proc", "sys", "dev"} {
		r.dir(d, 0o755, 0)
	}
	r.dir("tmp", 0o1777, 0)
	r.dir("var/tmp", 0o1777, 0)
	r.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n")
	r.text("etc/group", 0o644, "root:x:0:root\nnobody:x:65534:\n")
	r.file("bin/busybox", busybox)
	for _, a := range applets {
		r.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}, nil)
	}
}

// standIn describes one stand-in image.
type standIn struct {
	name    string   // name in the Dockerfile or the compose file
	made    string   // identifies the content, for the label: another value rebuilds it
	changes []string // instructions for docker import
	fill    func(r *rootfs)
}

// ensure builds the image, unless the real one or the same stand-in exists.
func (s standIn) ensure(tb testing.TB) {
	tb.Helper()
	made := hex.EncodeToString(sum(s.made))[:16]
	out, err := docker("image", "inspect", "--format", "{{index .Config.Labels \""+standInLabel+"\"}}", s.name)
	switch label := strings.TrimSpace(out); {
	case err == nil && label == made:
		return
	case err == nil && (label == "" || label == "<no value>"):
		tb.Logf("%s: the real image is here", s.name)
		return
	}

	start := time.Now()
	imported(tb, s.name, append(s.changes, "LABEL "+standInLabel+"="+made), s.fill)
	tb.Logf("stand-in for %s made in %.1f s", s.name, time.Since(start).Seconds())
}

// imported builds an image with one layer.
func imported(tb testing.TB, name string, changes []string, fill func(r *rootfs)) {
	tb.Helper()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.Command("docker", append(args, "-", name)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	r := &rootfs{w: tar.NewWriter(in)}
	fill(r)
	if r.err == nil {
		r.err = r.w.Close()
	}
	in.Close()
	if err := errors.Join(r.err, cmd.Wait()); err != nil {
		tb.Fatalf("image %s: %v\n%s", name, err, said.String())
	}
}

func sum(s string) []byte {
	b := sha256.Sum256([]byte(s))
	return b[:]
}

// static finds a statically linked busybox.
func static(tb testing.TB) string {
	tb.Helper()
	const hint = "install a static busybox (Debian: apt-get install busybox-static)"
	bin, err := exec.LookPath("busybox")
	if err != nil {
		tb.Fatalf("%v\nhint: %s", err, hint)
	}
	f, err := elf.Open(bin)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			tb.Fatalf("%s is linked dynamically\nhint: %s", bin, hint)
		}
	}
	return bin
}

// docker runs the docker client and returns its stdout.
func docker(args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := exec.Command("docker", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// bases returns the images that the Dockerfile builds from, without its own stages.
func bases(dockerfile string) []string {
	var names []string
	stages := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^FROM\s+(\S+)(?:\s+AS\s+(\S+))?`).FindAllStringSubmatch(dockerfile, -1) {
		if !stages[m[1]] {
			names = append(names, m[1])
		}
		stages[m[2]] = true
	}
	return names
}
