//go:build e2e

package compose

import (
	"archive/tar"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// glibc adds the C library of this machine, with its loader. On Debian /lib and /lib64 are
// links.
func (r *rootfs) glibc(tb testing.TB) {
	tb.Helper()
	r.merged()
	libc := gcc(tb, "-print-file-name=libc.so.6")
	var list []string
	for _, name := range []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2"} {
		list = append(list, filepath.Join(filepath.Dir(libc), name))
	}
	r.copies(append(list, shared(tb, libc)...))
	r.text("etc/debian_version", 0o644, "13.0\n") // by it the NVIDIA toolkit knows where libraries belong
}

// compiler adds the C compiler of this machine and what a cgo build links with.
func (r *rootfs) compiler(tb testing.TB) {
	tb.Helper()
	r.merged()
	arch := gcc(tb, "-print-multiarch")
	libgcc := filepath.Dir(gcc(tb, "-print-libgcc-file-name"))
	libs := filepath.Dir(gcc(tb, "-print-file-name=crt1.o"))
	programs := []string{"/usr/bin/gcc", "/usr/bin/as", "/usr/bin/ld", gcc(tb, "-print-prog-name=cc1"), gcc(tb, "-print-prog-name=collect2")}
	files := slices.Clone(programs)
	for _, p := range programs {
		files = append(files, shared(tb, p)...)
	}
	for _, pattern := range []string{"*crt*.o", "libc.so*", "libc_nonshared.a", "libm.so*", "libmvec.so*", "libdl.*", "libpthread.*", "librt.*", "libresolv.*"} {
		found, err := filepath.Glob(filepath.Join(libs, pattern))
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, pattern := range []string{"crt*.o", "libgcc*", "liblto_plugin.so"} {
		found, err := filepath.Glob(filepath.Join(libgcc, pattern))
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, found...)
	}
	files = append(files, gcc(tb, "-print-file-name=libgcc_s.so.1"))
	r.copies(files)
	all := func(string, fs.DirEntry) bool { return false }
	r.tree(strings.TrimPrefix(libgcc, "/")+"/include", libgcc+"/include", all)
	kept := []string{"linux", "asm-generic", "bits", "sys", "net", "netinet", "netpacket", "arpa", "gnu", "rpc", arch}
	r.tree("usr/include", "/usr/include", func(rel string, d fs.DirEntry) bool {
		top, _, _ := strings.Cut(rel, "/")
		return d.IsDir() && !slices.Contains(kept, top)
	})
}

// merged adds the links of a Debian file system.
func (r *rootfs) merged() {
	for _, name := range []string{"lib", "lib64"} {
		r.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name, Mode: 0o777}, nil)
	}
}

// copies adds files of this machine at the paths that they have here, each once. A link
// becomes the file that it leads to.
func (r *rootfs) copies(files []string) {
	done := map[string]bool{}
	for _, from := range files {
		to := strings.TrimPrefix(filepath.Clean(from), "/")
		if strings.HasPrefix(to, "lib") {
			to = "usr/" + to
		}
		if !done[to] {
			done[to] = true
			r.file(to, from)
		}
	}
}

// shared returns the libraries that a program or library needs, its loader included.
func shared(tb testing.TB, program string) (list []string) {
	tb.Helper()
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		tb.Fatalf("ldd %s: %v", program, err)
	}
	for _, m := range regexp.MustCompile(`(?m)(?:=> |^\s+)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		list = append(list, m[1])
	}
	return list
}

// gcc asks the compiler of this machine for a path or a word.
func gcc(tb testing.TB, question string) string {
	tb.Helper()
	out, err := exec.Command("gcc", question).Output()
	if err != nil {
		tb.Fatalf("gcc %s: %v\nhint: install a C compiler (Debian: apt-get install gcc libc6-dev)", question, err)
	}
	answer := strings.TrimSpace(string(out))
	if strings.HasPrefix(answer, "/") {
		if _, err := os.Stat(answer); err != nil {
			tb.Fatalf("gcc %s: %v", question, err)
		}
	}
	return answer
}
