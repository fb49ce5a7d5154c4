package discover

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat/internal/probe"
)

// engine is how a process of an engine looks.
type engine struct {
	kind     probe.Kind
	programs []string // names of its program, or of its script for Python
	modules  []string // of python -m
	title    string   // how its children begin that give themselves a name
	command  string   // the argument that makes it a server; empty: it is one without
	port     uint16   // where it listens by default
	portArgs []string // arguments with its port
	portEnv  string   // the variable with its port, or its address and port
	slotArgs []string // arguments with how many requests it computes at once
	slotEnv  string
}

// looks has the engines by their commands. The names of arguments and variables:
//   - vllm: vllm/engine/arg_utils.py, vllm/entrypoints/openai/cli_args.py
//   - sglang: sglang/srt/server_args.py
//   - llama.cpp: common/arg.cpp
//   - ollama: envconfig/config.go
//   - text-generation-inference: launcher/src/main.rs
//   - TensorRT-LLM: tensorrt_llm/commands/serve.py
var looks = []engine{
	{
		kind: probe.VLLM, programs: []string{"vllm"}, command: "serve", port: 8000, title: "VLLM::",
		modules:  []string{"vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server"},
		portArgs: []string{"--port"}, slotArgs: []string{"--max-num-seqs"},
	},
	{
		kind: probe.SGLang, programs: []string{"sglang"}, command: "serve", port: 30000, title: "sglang::",
		modules:  []string{"sglang.launch_server"},
		portArgs: []string{"--port"}, slotArgs: []string{"--max-running-requests"},
	},
	{
		kind: probe.LlamaCPP, programs: []string{"llama-server"}, port: 8080,
		portArgs: []string{"--port"}, portEnv: "LLAMA_ARG_PORT", slotArgs: []string{"--parallel", "-np"}, slotEnv: "LLAMA_ARG_N_PARALLEL",
	},
	{
		kind: probe.Ollama, programs: []string{"ollama"}, command: "serve", port: 11434,
		portEnv: "OLLAMA_HOST", slotEnv: "OLLAMA_NUM_PARALLEL",
	},
	{
		kind: probe.TRTLLM, programs: []string{"trtllm-serve"}, port: 8000,
		portArgs: []string{"--port"}, slotArgs: []string{"--max_batch_size"},
	},
	{
		kind: probe.TGI, programs: []string{"text-generation-launcher", "text-generation-router"}, port: 3000,
		portArgs: []string{"--port", "-p"}, portEnv: "PORT", slotArgs: []string{"--max-concurrent-requests"},
	},
}

// variables are those of an engine's environment that are looked at. HOSTNAME is the name of its
// container or pod.
var variables = func() (list []string) {
	list = []string{"HOSTNAME"}
	for _, e := range looks {
		for _, v := range []string{e.portEnv, e.slotEnv} {
			if v != "" {
				list = append(list, v)
			}
		}
	}
	return list
}()

// engineOf returns the engine that a command names.
func engineOf(args []string) *engine {
	if len(args) == 0 {
		return nil
	}
	name, rest := path.Base(args[0]), args[1:]
	module := ""
	if isPython(name) {
		name, module, rest = script(rest)
	}
	for i := range looks {
		e := &looks[i]
		switch {
		case e.title != "" && strings.HasPrefix(args[0], e.title):
			return e
		case module != "" && slices.Contains(e.modules, module):
			return e
		case slices.Contains(e.programs, name) && (e.command == "" || slices.Contains(rest, e.command)):
			return e
		}
	}
	return nil
}

func isPython(name string) bool { return strings.HasPrefix(name, "python") }

// script returns the name of what Python runs, and the arguments after it.
func script(args []string) (name, module string, rest []string) {
	for i, a := range args {
		switch {
		case a == "-m" && i+1 < len(args):
			return "", args[i+1], args[i+2:]
		case a == "-c":
			return "", "", nil
		case !strings.HasPrefix(a, "-"):
			return path.Base(a), "", args[i+1:]
		}
	}
	return "", "", nil
}

// argument returns the value of one of the arguments, as "--port 8000" or "--port=8000".
func argument(args, names []string) string {
	for i, a := range args {
		name, value, joined := strings.Cut(a, "=")
		switch {
		case !slices.Contains(names, name):
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// configuredPort is the port in the command of a process, or 0.
func (e *engine) configuredPort(args []string, env map[string]string) uint16 {
	text := argument(args, e.portArgs)
	if text == "" && e.portEnv != "" {
		text = env[e.portEnv]
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			text = text[i+1:]
		}
	}
	n, _ := strconv.ParseUint(strings.TrimSuffix(text, "/"), 10, 16)
	return uint16(n)
}

// configuredSlots is how many requests at once the command of a process allows, or 0.
func (e *engine) configuredSlots(args []string, env map[string]string) uint64 {
	text := argument(args, e.slotArgs)
	if text == "" && e.slotEnv != "" {
		text = env[e.slotEnv]
	}
	n, _ := strconv.ParseUint(text, 10, 32)
	return n
}

// byPort returns the engines that listen on a port by default.
func byPort(port uint16) (kinds []string) {
	for i := range looks {
		if looks[i].port == port {
			kinds = append(kinds, string(looks[i].kind))
		}
	}
	return kinds
}

// forwarders are programs that listen for a container on a port of the machine.
var forwarders = []string{"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2", "conmon"}

// mayServe reports whether a process with this command may be an engine though the command does
// not name one.
func mayServe(args []string) bool {
	if len(args) == 0 {
		return false
	}
	name := path.Base(args[0])
	return isPython(name) || slices.Contains(forwarders, name)
}

// proxyOf reads the command of docker-proxy.
func proxyOf(args []string) (p Proxy, ok bool) {
	if len(args) == 0 || path.Base(args[0]) != "docker-proxy" || argument(args, []string{"-proto"}) != "tcp" {
		return p, false
	}
	at := func(ip, port string) (netip.AddrPort, bool) {
		a, err := netip.ParseAddr(argument(args, []string{ip}))
		n, errPort := strconv.ParseUint(argument(args, []string{port}), 10, 16)
		return netip.AddrPortFrom(a, uint16(n)), err == nil && errPort == nil
	}
	var okTo bool
	p.Host, ok = at("-host-ip", "-host-port")
	p.To, okTo = at("-container-ip", "-container-port")
	return p, ok && okTo
}
