package discover

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat/internal/probe"
)

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		command string
		env     string
		kind    probe.Kind // empty: it names no engine
		port    uint16
		slots   uint64
		shown   string
	}{
		{command: "/usr/bin/python3 /opt/venv/bin/vllm serve Qwen/Qwen3-8B --port 8001 --max-num-seqs=64", kind: probe.VLLM, port: 8001, slots: 64, shown: "python3 /opt/venv/bin/vllm serve"},
		{command: "vllm serve Qwen/Qwen3-8B --api-key secret", kind: probe.VLLM, shown: "vllm serve Qwen/Qwen3-8B"},
		{command: "python -u -m vllm.entrypoints.openai.api_server --port=9000", kind: probe.VLLM, port: 9000, shown: "python"},
		{command: "python3 -m vllm.entrypoints.openai.api_server --model m", kind: probe.VLLM, shown: "python3 -m vllm.entrypoints.openai.api_server"},
		{command: "VLLM::APIServer_0", kind: probe.VLLM, shown: "VLLM::APIServer_0"},
		{command: "vllm bench serve-like", kind: ""},
		{command: "vllm chat --url http://x"},
		{command: "python3 -m sglang.launch_server --port 30001 --max-running-requests 32", kind: probe.SGLang, port: 30001, slots: 32, shown: "python3 -m sglang.launch_server"},
		{command: "/app/llama-server --api-key secret -np 4 --port 8081", kind: probe.LlamaCPP, port: 8081, slots: 4, shown: "llama-server"},
		{command: "llama-server -m model.gguf", env: "LLAMA_ARG_PORT=8090 LLAMA_ARG_N_PARALLEL=2", kind: probe.LlamaCPP, port: 8090, slots: 2, shown: "llama-server"},
		{command: "/usr/local/bin/ollama serve", env: "OLLAMA_HOST=http://0.0.0.0:11500/ OLLAMA_NUM_PARALLEL=3", kind: probe.Ollama, port: 11500, slots: 3, shown: "ollama serve"},
		{command: "/usr/local/bin/ollama serve", env: "OLLAMA_HOST=0.0.0.0", kind: probe.Ollama, shown: "ollama serve"},
		{command: "ollama run llama3.2"},
		{command: "ollama runner --ollama-engine --port 40001"},
		{command: "text-generation-launcher --model-id m -p 3001 --max-concurrent-requests 128", kind: probe.TGI, port: 3001, slots: 128, shown: "text-generation-launcher"},
		{command: "text-generation-router --port 3000", env: "PORT=80", kind: probe.TGI, port: 3000, shown: "text-generation-router"},
		{command: "/usr/bin/python3 /usr/local/bin/trtllm-serve m --max_batch_size 16", kind: probe.TRTLLM, slots: 16, shown: "python3 /usr/local/bin/trtllm-serve m"},
		{command: "docker run vllm/vllm-openai serve"},
		{command: "bash start-vllm.sh serve"},
		{command: "tail -f vllm serve"},
		{command: "python3 -c vllm serve"},
		{command: ""},
	} {
		args := strings.Fields(tt.command)
		e := engineOf(args)
		if tt.kind == "" || e == nil {
			if e != nil || tt.kind != "" {
				t.Errorf("%q names %+v, want %q", tt.command, e, tt.kind)
			}
			continue
		}
		env := map[string]string{}
		for _, v := range strings.Fields(tt.env) {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		if port, slots := e.configuredPort(args, env), e.configuredSlots(args, env); e.kind != tt.kind || port != tt.port || slots != tt.slots {
			t.Errorf("%q: %s, port %d, slots %d; want %s, %d, %d", tt.command, e.kind, port, slots, tt.kind, tt.port, tt.slots)
		}
		if got := commandOf(args); got != tt.shown {
			t.Errorf("%q is shown as %q, want %q", tt.command, got, tt.shown)
		}
	}
}

// proc describes a process of a scan: "pid parent net command | address…".
func proc(t *testing.T, line string) Process {
	t.Helper()
	head, listen, _ := strings.Cut(line, "|")
	f := strings.Fields(head)
	p := Process{Net: f[2], Args: f[3:], Start: 1}
	if _, err := fmt.Sscan(f[0], &p.PID); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields(listen) {
		p.Listen = append(p.Listen, netip.MustParseAddrPort(a))
	}
	return p
}

func TestCandidates(t *testing.T) {
	addr := netip.MustParseAddr
	at := netip.MustParseAddrPort
	pod := func(p Process) Process {
		p.Addrs, p.Env = []netip.Addr{addr("10.42.0.7")}, map[string]string{"HOSTNAME": "llama-0.llama"}
		return p
	}
	for _, tt := range []struct {
		name    string
		scan    Scan
		parents string   // "child:parent …"
		want    []string // "id pids url"
		found   string   // what is known without asking
	}{
		{
			name: "on all addresses, asked on loopback",
			scan: Scan{Procs: []Process{proc(t, "7 1 host vllm serve | 0.0.0.0:8000 [::]:8000")}},
			want: []string{"vllm-8000 [7] http://127.0.0.1:8000"},
		},
		{
			name: "on one address only",
			scan: Scan{Procs: []Process{proc(t, "7 1 host vllm serve | 192.0.2.7:8000")}},
			want: []string{"vllm-8000 [7] http://192.0.2.7:8000"},
		},
		{
			name: "on loopback of IPv6 only",
			scan: Scan{Procs: []Process{proc(t, "7 1 host llama-server | [::1]:8080")}},
			want: []string{"llamacpp-8080 [7] http://[::1]:8080"},
		},
		{
			name: "its command names its port; the others are those of its own processes",
			scan: Scan{Procs: []Process{proc(t, "7 1 host vllm serve --port 8001 | 0.0.0.0:29500 0.0.0.0:8001 0.0.0.0:8000")}},
			want: []string{"vllm-8001 [7] http://127.0.0.1:8001"},
		},
		{
			name: "its default port",
			scan: Scan{Procs: []Process{proc(t, "7 1 host vllm serve | 0.0.0.0:29500 0.0.0.0:8000")}},
			want: []string{"vllm-8000 [7] http://127.0.0.1:8000"},
		},
		{
			name: "neither: a few are asked",
			scan: Scan{Procs: []Process{proc(t, "7 1 host vllm serve | 0.0.0.0:9005 0.0.0.0:9001 0.0.0.0:9002 0.0.0.0:9003 0.0.0.0:9004")}},
			want: []string{
				"vllm-9001 [7] http://127.0.0.1:9001", "vllm-9002 [7] http://127.0.0.1:9002",
				"vllm-9003 [7] http://127.0.0.1:9003", "vllm-9004 [7] http://127.0.0.1:9004",
			},
		},
		{
			name:  "it loads, and listens on nothing yet",
			scan:  Scan{Procs: []Process{proc(t, "7 1 host vllm serve")}},
			found: "vllm serve (pid 7): listens on no port yet",
		},
		{
			name:    "a child listens",
			scan:    Scan{Procs: []Process{proc(t, "7 1 host text-generation-launcher"), proc(t, "9 8 host text-generation-router | 0.0.0.0:3000")}},
			parents: "9:8 8:7 7:1",
			want:    []string{"tgi-3000 [7 9] http://127.0.0.1:3000"},
		},
		{
			name:    "the engines that another one runs are its own",
			scan:    Scan{Procs: []Process{proc(t, "7 1 host ollama serve | 127.0.0.1:11434"), proc(t, "9 7 host llama-server --port 40001 | 127.0.0.1:40001")}},
			parents: "9:7 7:1",
			want:    []string{"ollama-11434 [7 9] http://127.0.0.1:11434"},
		},
		{
			name:    "two of one parent are two",
			scan:    Scan{Procs: []Process{proc(t, "7 5 host vllm serve --port 8001 | 0.0.0.0:8001"), proc(t, "9 5 host vllm serve --port 8002 | 0.0.0.0:8002")}},
			parents: "9:5 7:5 5:1",
			want:    []string{"vllm-8001 [7] http://127.0.0.1:8001", "vllm-8002 [9] http://127.0.0.1:8002"},
		},
		{
			name: "a container with a published port",
			scan: Scan{
				Procs:   []Process{pod(proc(t, "7 1 pod vllm serve | 0.0.0.0:8000"))},
				Proxies: []Proxy{{at("127.0.0.1:9000"), at("10.42.0.8:8000")}, {at("0.0.0.0:8011"), at("10.42.0.7:8000")}},
				Sockets: []Socket{{At: at("0.0.0.0:8011"), Program: "docker-proxy"}},
			},
			want: []string{"vllm-8011 [7] http://127.0.0.1:8011"},
		},
		{
			name: "a pod, by its own address; its name tells it from others",
			scan: Scan{Procs: []Process{pod(proc(t, "7 1 pod vllm serve | 0.0.0.0:8000"))}},
			want: []string{"vllm-8000-llama-0-llama [7] http://10.42.0.7:8000"},
		},
		{
			name:  "a container that listens on its loopback only",
			scan:  Scan{Procs: []Process{pod(proc(t, "7 1 pod ollama serve | 127.0.0.1:11434"))}},
			found: "ollama serve (pid 7): listens on port 11434 inside its container only",
		},
		{
			name: "another user's process: the default port",
			scan: Scan{Procs: []Process{{PID: 7, Start: 1, Args: []string{"ollama", "serve"}, Denied: true, Listen: []netip.AddrPort{at("127.0.0.1:11434")}}}},
			want: []string{"ollama-11434 [7] http://127.0.0.1:11434"},
		},
		{
			name:  "another user's process, and nothing listens where it should",
			scan:  Scan{Procs: []Process{{PID: 7, Start: 1, Args: []string{"ollama", "serve"}, Denied: true}}},
			found: "ollama serve (pid 7): its open files cannot be read, and nothing listens on the port that its command names or on its default",
		},
		{
			name: "a default port of an unknown process",
			scan: Scan{Sockets: []Socket{{At: at("127.0.0.1:30000")}}},
			want: []string{"sglang-30000 [] http://127.0.0.1:30000"},
		},
		{
			name: "a default port of a program in Python",
			scan: Scan{Sockets: []Socket{{At: at("0.0.0.0:30000"), PID: 9, Start: 1, Program: "python3"}}},
			want: []string{"sglang-30000 [9] http://127.0.0.1:30000"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.scan
			s.Net, s.Parents = "host", map[uint64]uint64{}
			for _, pair := range strings.Fields(tt.parents) {
				var child, parent uint64
				if _, err := fmt.Sscanf(pair, "%d:%d", &child, &parent); err != nil {
					t.Fatal(err)
				}
				s.Parents[child] = parent
			}
			list, findings := Candidates(&s)
			var got []string
			for i := range list {
				c := &list[i]
				kind := c.Kind
				if kind == "" {
					kind = probe.SGLang
				}
				got = append(got, fmt.Sprintf("%s %v %s", c.id(kind), c.PIDs, c.URL))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("candidates (-want +got)\n%s", diff)
			}
			found := ""
			for i := range findings {
				found += findings[i].Subject() + ": " + findings[i].What
			}
			if found != tt.found {
				t.Errorf("it finds %q, want %q", found, tt.found)
			}
		})
	}
}
