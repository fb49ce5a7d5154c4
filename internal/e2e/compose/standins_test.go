//go:build e2e

package compose

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// standIns returns a stand-in for every image in the Dockerfile and the compose file. It
// fails for an image that has no stand-in.
func standIns(tb testing.TB) []standIn {
	tb.Helper()
	dockerfile, err := os.ReadFile(filepath.Join(rig.Root(), "Dockerfile"))
	if err != nil {
		tb.Fatal(err)
	}
	composeFile, err := os.ReadFile(filepath.Join(rig.Root(), "docker-compose.yml"))
	if err != nil {
		tb.Fatal(err)
	}
	names := bases(string(dockerfile))
	for _, m := range regexp.MustCompile(`(?m)^\s+image:\s+(\S+)`).FindAllStringSubmatch(string(composeFile), -1) {
		if !strings.HasPrefix(m[1], "${HIVEBEAT_IMAGE") { // that one is built
			names = append(names, m[1])
		}
	}

	var all []standIn
	for _, name := range names {
		repository, tag, _ := strings.Cut(name, ":")
		switch {
		case repository == "golang" && strings.HasSuffix(tag, "-bookworm"):
			all = append(all, golang(tb, name))
		case repository == "nats" && strings.HasSuffix(tag, "-alpine"):
			all = append(all, natsServer(tb, name, "v"+strings.TrimSuffix(tag, "-alpine")))
		case strings.HasPrefix(repository, "gcr.io/distroless/static-") && tag == "nonroot":
			all = append(all, distroless(tb, name, false))
		case strings.HasPrefix(repository, "gcr.io/distroless/base-") && tag == "nonroot":
			all = append(all, distroless(tb, name, true))
		default:
			tb.Fatalf("no stand-in for %s\nhint: add one to internal/e2e/compose/standins_test.go", name)
		}
	}
	return all
}

// golang stands in for the official Go image on Debian. It contains the Go and C toolchains
// of this machine; its module cache as the module proxy, because containers may not reach
// one; and its build cache, because half of a build would otherwise compile the same packages
// again.
func golang(tb testing.TB, name string) standIn {
	tb.Helper()
	busybox := static(tb)
	env := goEnv(tb, "GOROOT", "GOMODCACHE", "GOVERSION")
	goroot, cache, version := env[0], filepath.Join(env[1], "cache", "download"), env[2]
	if out, err := inRoot("go", "mod", "download"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	sums, err := os.ReadFile(filepath.Join(rig.Root(), "go.sum"))
	if err != nil {
		tb.Fatal(err)
	}
	return standIn{
		name: name,
		made: "golang 6 " + version + "\n" + string(sums),
		changes: []string{
			"ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin", "ENV GOPATH=/go", "ENV GOTOOLCHAIN=local",
			"ENV GOPROXY=file:///usr/local/modules", "ENV GOSUMDB=off", "ENV GOCACHE=/usr/local/compiled", "WORKDIR /go", `CMD ["sh"]`,
		},
		fill: func(r *rootfs) {
			r.alpine(busybox)
			r.dir("go", 0o1777, 0)
			r.tree("usr/local/go", goroot, func(rel string, d fs.DirEntry) bool {
				top, _, _ := strings.Cut(rel, "/")
				return top == "test" || top == "doc" || top == "api" || top == "misc" ||
					d.IsDir() && d.Name() == "testdata" || strings.HasSuffix(rel, "_test.go")
			})
			r.modules("usr/local/modules", cache, string(sums))
			r.compiled(tb, "usr/local/compiled")
			r.compiler(tb)
		},
	}
}

// compiled copies the packages of our command from Go's build cache: for each package, the
// entry of the action that the builds in the Dockerfile ask for, and its output. Missing
// packages are compiled now. An entry that does not match is just never found.
func (r *rootfs) compiled(tb testing.TB, name string) {
	tb.Helper()
	cache := goEnv(tb, "GOCACHE")[0]
	var out string
	for _, cgo := range []string{"CGO_ENABLED=0", "CGO_ENABLED=1"} { // static, and for GPUs
		list, err := inRoot("env", cgo, "go", "list", "-deps", "-export", "-trimpath", "-f", "{{if .Export}}{{.BuildID}} {{.Export}}{{end}}", "./cmd/hivebeat")
		if err != nil {
			tb.Fatal(err)
		}
		out += list
	}
	r.dir(name, 0o755, 0)
	for i := range 256 {
		r.dir(fmt.Sprintf("%s/%02x", name, i), 0o755, 0)
	}
	copied := map[string]bool{}
	for line := range strings.Lines(out) {
		id, export, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		// A build id begins with 15 bytes of the action's hash; the cache names the entry by all 32.
		action, err := base64.RawURLEncoding.DecodeString(id[:strings.IndexByte(id, '/')])
		if err != nil {
			tb.Fatalf("build id %s: %v", id, err)
		}
		entries, err := filepath.Glob(filepath.Join(cache, fmt.Sprintf("%02x", action[0]), fmt.Sprintf("%x*-a", action)))
		if err != nil {
			tb.Fatal(err)
		}
		for _, from := range append(entries, export) {
			rel, err := filepath.Rel(cache, from)
			if err != nil {
				tb.Fatal(err)
			}
			if !copied[rel] {
				copied[rel] = true
				r.file(path.Join(name, filepath.ToSlash(rel)), from)
			}
		}
	}
	tb.Logf("%d files of compiled packages in the stand-in for Go", len(copied))
}

// modules copies the part of a module cache that a build with this go.sum reads.
func (r *rootfs) modules(name, cache, sums string) {
	done := map[string]bool{}
	for line := range strings.Lines(sums) {
		module, version, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		version, _, _ = strings.Cut(version, " ")
		version = strings.TrimSuffix(version, "/go.mod")
		base := escape(module) + "/@v/" + escape(version)
		if done[base] {
			continue
		}
		done[base] = true
		for _, ext := range []string{".info", ".mod", ".zip"} {
			from := filepath.Join(cache, filepath.FromSlash(base+ext))
			if _, err := os.Stat(from); err == nil {
				r.file(name+"/"+base+ext, from)
			}
		}
	}
}

// escape writes upper case letters like the module proxy protocol: !a for A.
func escape(s string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(s, func(c string) string { return "!" + strings.ToLower(c) })
}

// entrypoint behaves like that of the official image: arguments that are only flags go to
// nats-server.
const entrypoint = `#!/bin/sh
set -e
case "$1" in
"" | -*) set -- nats-server "$@" ;;
esac
exec "$@"
`

// natsServer stands in for the official nats-server image on Alpine. The server is built
// from its module in that version.
func natsServer(tb testing.TB, name, version string) standIn {
	tb.Helper()
	busybox := static(tb)
	return standIn{
		name: name,
		made: "nats 1 " + version,
		changes: []string{
			"ENV PATH=/usr/local/bin:/usr/bin:/bin", "EXPOSE 4222 8222 6222",
			`ENTRYPOINT ["docker-entrypoint.sh"]`, `CMD ["nats-server", "--config", "/etc/nats/nats-server.conf"]`,
		},
		fill: func(r *rootfs) {
			r.alpine(busybox)
			r.dir("etc/nats", 0o755, 0)
			r.text("etc/nats/nats-server.conf", 0o644, "port: 4222\nmonitor_port: 8222\n")
			r.text("usr/local/bin/docker-entrypoint.sh", 0o755, entrypoint)
			r.file("usr/local/bin/nats-server", rig.Install(tb, rig.NATSServer+"@"+version))
		},
	}
}

// distroless stands in for gcr.io/distroless/static: users, certificates, and nothing that
// can be executed; and for gcr.io/distroless/base-nossl, which has glibc too.
func distroless(tb testing.TB, name string, glibc bool) standIn {
	tb.Helper()
	return standIn{
		name: name,
		made: fmt.Sprint("distroless 1 ", glibc),
		changes: []string{
			"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "USER 65532", "WORKDIR /home/nonroot",
		},
		fill: func(r *rootfs) {
			for _, d := range []string{"etc", "etc/ssl", "etc/ssl/certs", "home", "usr", "usr/bin", "var", "proc", "sys", "dev"} {
				r.dir(d, 0o755, 0)
			}
			r.dir("tmp", 0o1777, 0)
			r.dir("root", 0o700, 0)
			r.dir("home/nonroot", 0o700, 65532)
			r.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
			r.text("etc/group", 0o644, "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")
			const certs = "/etc/ssl/certs/ca-certificates.crt"
			if _, err := os.Stat(certs); err == nil {
				r.file(strings.TrimPrefix(certs, "/"), certs)
			}
			if glibc {
				r.glibc(tb)
			}
		},
	}
}

func goEnv(tb testing.TB, names ...string) []string {
	tb.Helper()
	out, err := inRoot("go", append([]string{"env"}, names...)...)
	if err != nil {
		tb.Fatal(err)
	}
	values := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(values) != len(names) {
		tb.Fatalf("go env %v: %q", names, out)
	}
	return values
}

func inRoot(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = rig.Root()
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
