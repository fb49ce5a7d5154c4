// Package discover finds the inference engines that run on this machine, by their processes and
// the TCP ports on which these listen, and beats for them. It reads /proc and scans no network.
//
// Which ports are asked. A request to a service that did not expect it is impolite, so a port is
// asked only if it is likely to be an engine's:
//   - the command of the process that listens on it names an engine (vllm serve, llama-server,
//     ollama serve, python -m sglang.launch_server …), or
//   - it is an engine's default port, and its process cannot be read, or is an interpreter or
//     forwards the port to a container.
//
// An engine is one that answers as one ([probe.Detect]): a few GETs, none of which costs a token.
//
// The package has a pure core: [Candidates] says what to ask, a plan what to beat for. A scanner
// reads /proc for it, and a [Discovery] runs both.
package discover
