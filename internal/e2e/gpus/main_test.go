//go:build e2e

// Package gpus plays scenes of GPUs that fail, split, share memory and disappear to real
// hives, with a stand-in for nvidia-smi, and looks at what people and programs are told.
package gpus

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Rows wait for readings of GPUs, 10 s apart, and compute little: all at once.
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	rig.Main(m)
}

// moment is how long anything may take that needs one reading of the GPUs: the pause
// between two is 10 s. It is generous, because all rows run at once.
const moment = 40 * time.Second

// fabric is a NATS server and a queen, which all machines share.
type fabric struct {
	url    string // NATS
	http   string // the queen
	nc     *nats.Conn
	events *rig.Events
	smi    string // folder of the stand-in, for PATH
	engine string
}

// start builds the stand-ins and starts NATS and the queen.
func start(t *testing.T) *fabric {
	t.Helper()
	bin := t.TempDir()
	build(t, filepath.Join(bin, "nvidia-smi"), "./internal/e2e/gpus/smi")
	build(t, filepath.Join(bin, "engine"), "./internal/e2e/gpus/engine")
	port, web := rig.Port(t), rig.Port(t)
	f := &fabric{
		url: fmt.Sprintf("nats://127.0.0.1:%d", port), http: fmt.Sprintf("http://127.0.0.1:%d", web),
		smi: bin, engine: filepath.Join(bin, "engine"),
	}
	up := rig.Start(t, "up", nil, rig.Hivebeat(t), "up", "--port", strconv.Itoa(port), "--http", strings.TrimPrefix(f.http, "http://"),
		"--store", t.TempDir(), "--id", "queens-own", "--metrics", "off")
	up.Said("hivebeat is up", moment)
	f.nc = rig.Connect(t, f.url)
	f.events = rig.Listen(t, f.nc)
	return f
}

// build compiles a program of this folder.
func build(t testing.TB, out, pkg string, flags ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-tags", "e2e"}, flags...), "-o", out, pkg)...)
	cmd.Dir = rig.Root()
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
}

// machine is a hive whose GPUs are those of a scene.
type machine struct {
	*fabric
	t       *testing.T
	id      string
	scene   string // file
	metrics string // URL
	hive    *rig.Proc
	engines map[string]*rig.Proc
}

// machine starts a hive and its workers.
func (f *fabric) machine(t *testing.T, id string, r row) *machine {
	t.Helper()
	m := &machine{fabric: f, t: t, id: id, engines: map[string]*rig.Proc{}}
	b, err := os.ReadFile(filepath.Join("testdata", "scenes", r.scene+".json"))
	if err != nil {
		t.Fatal(err)
	}
	m.scene = filepath.Join(t.TempDir(), "scene.json")
	if err := os.WriteFile(m.scene, b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.endChildren) // after the processes below have ended
	for _, e := range r.engines {
		m.start(e)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", rig.Port(t))
	m.metrics = "http://" + addr + "/metrics"
	env := []string{"HIVEBEAT_NATS=" + f.url, "SCENE=" + m.scene, "PATH=" + f.smi + ":" + os.Getenv("PATH")}
	m.hive = rig.Start(t, "hive "+id, env, append([]string{rig.Hivebeat(t), "hive", "--id", id, "--metrics", addr}, r.flags...)...)
	return m
}

// engine describes a worker.
type engine struct {
	id    string
	gpus  string // UUIDs that it names
	need  uint64 // bytes that it will hold once it has loaded; it loads for ever
	child bool   // its child holds the memory of the processes "engine.pid" in the scene
}

func (m *machine) start(e engine) {
	m.t.Helper()
	args := []string{m.engine, "-hive", m.id, "-id", e.id, "-model", "model-" + m.id, "-gpus", e.gpus, "-need", fmt.Sprint(e.need)}
	if e.child {
		args = append(args, "-child", m.childFile())
	}
	m.engines[e.id] = rig.Start(m.t, m.id+"/"+e.id, []string{"HIVEBEAT_NATS=" + m.url}, args...)
	if e.child {
		rig.Until(m.t, moment, "the child of "+e.id, func() (bool, string) {
			_, err := os.Stat(m.childFile())
			return err == nil, fmt.Sprint(err)
		})
	}
}

func (m *machine) childFile() string { return filepath.Join(filepath.Dir(m.scene), "engine.pid") }

// endChildren ends the child of an engine that was killed, and what a stand-in left behind.
func (m *machine) endChildren() {
	if b, err := os.ReadFile(m.childFile()); err == nil {
		if pid, err := strconv.Atoi(string(b)); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, pid := range m.standIns() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// standIns returns the pids of all processes that play this machine's scene, children that
// were left behind included.
func (m *machine) standIns() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || m.hive != nil && pid == m.hive.PID() {
			continue
		}
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), "SCENE="+m.scene+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// play begins a step of the scene. "" is the scene as it stands.
func (m *machine) play(step string) {
	m.t.Helper()
	file := m.scene + ".step"
	err := os.WriteFile(file+".new", []byte(step), 0o600)
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// get asks the queen over HTTP.
func (f *fabric) get(path string) (a api.Answer, err error) {
	body, err := fetch(f.http + path)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}

func fetch(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, resp.Status, body)
	}
	return body, err
}

// hiveInfo returns what the queen answers about the machine.
func (m *machine) hiveInfo() (api.HiveInfo, error) {
	a, err := m.get("/v1/hives/" + m.id)
	if err != nil || len(a.Hives) != 1 {
		return api.HiveInfo{}, fmt.Errorf("%d hives: %w", len(a.Hives), err)
	}
	return a.Hives[0], nil
}

// gate lets only some commands run at once: 30 rows ask at the same time.
var gate = make(chan struct{}, 3)

// cli runs a command that asks.
func (m *machine) cli(args ...string) string {
	gate <- struct{}{}
	defer func() { <-gate }()
	out, errs, _ := rig.CLI(m.t, []string{"HIVEBEAT_NATS=" + m.url}, args...)
	return out + errs
}

// gpuEvents returns the events about the machine's GPUs, in order.
func (m *machine) gpuEvents() (list []string) {
	for _, kind := range []hivebeat.Kind{"gpu-lost", "gpu-failing", "gpu-degraded", "gpu-recovered", "gpu-orphan", "gpu-forgotten"} {
		for _, ev := range m.events.Of(kind, m.id) {
			index := "?"
			if ev.Data.GPUIndex != nil {
				index = strconv.FormatUint(*ev.Data.GPUIndex, 10)
			}
			list = append(list, string(kind)+" "+index)
		}
	}
	return list
}
