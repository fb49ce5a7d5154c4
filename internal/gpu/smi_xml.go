package gpu

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
)

// Limits of what is kept of the XML. Nothing else of it is.
const (
	maxFacts     = 1024 // fields of a GPU; a driver of 2025 has 200
	maxFactText  = 256  // bytes of a field
	maxProcesses = 4096 // of all GPUs together
	maxDepth     = 8    // of elements below a GPU
	maxMessages  = 256  // lines of the driver beside its XML
)

// smiLog is the output of nvidia-smi -q -x.
type smiLog struct {
	driver   string
	attached int // how many GPUs the driver counts; -1 if it does not say
	gpus     []smiGPU
	messages []string // lines that are no part of the XML, wherever they stand
	complete bool     // the XML has an end
	tooMany  bool     // more GPUs than the wire takes
}

// smiGPU is one gpu element: its fields by their path, such as fb_memory_usage/total, and
// its repeated elements.
type smiGPU struct {
	bus   string
	facts facts
	migs  []facts
	procs []facts
}

// facts are the texts of elements without children.
type facts map[string]string

func (f facts) add(path, text string) {
	if _, ok := f[path]; !ok && len(f) < maxFacts {
		f[path] = oneLine(text, maxFactText)
	}
}

// first returns the first field that is there with a value.
func (f facts) first(paths ...string) (path, text string) {
	for _, p := range paths {
		if t, ok := f[p]; ok && !absent(t) {
			return p, t
		}
	}
	return paths[0], ""
}

// yes reports whether a field says Yes.
func (f facts) yes(path string) bool { return strings.EqualFold(f[path], "yes") }

const (
	document  = "nvidia_smi_log"
	xmlBegin  = "<" + document
	clocks    = "supported_clocks"
	clocksEnd = "</" + clocks + ">"
)

// parseSMI parses the output of nvidia-smi -q -x of any generation (nvsmi_device_v4 to
// v13): they add and rename fields, and keep the frame. It keeps the GPUs before the place
// where the output breaks off.
func parseSMI(out []byte) smiLog {
	log := smiLog{attached: -1}
	begin := bytes.Index(out, []byte(xmlBegin))
	if begin < 0 {
		log.messages = lines(out)
		return log
	}
	for _, line := range lines(out[:begin]) {
		if !strings.HasPrefix(line, "<?") && !strings.HasPrefix(line, "<!") {
			log.messages = append(log.messages, line)
		}
	}
	p := smiParser{log: &log}
	after, complete := p.read(out[begin:])
	log.complete = complete && !p.inGPU
	log.messages = append(log.messages, lines(after)...)
	return log
}

// smiParser follows the elements. Text that is not the whole content of an element is a
// message of the driver, which may land anywhere between two lines.
type smiParser struct {
	log   *smiLog
	path  []string // elements below nvidia_smi_log, or below gpu
	leaf  bool     // the last element that began has not ended yet
	inGPU bool
	gpu   smiGPU
	procs int
	text  []byte
	in    facts // where fields go: to the GPU, or to one of its MIG devices or processes
	base  int   // length of path at which in began
}

// read follows the tags of body to the end of the document, and returns what comes after it.
// The driver writes a tag on one line, without < and > in it, so any other < is of a message.
// encoding/xml would take such a message for a broken document, and several times as long
// for a good one.
func (p *smiParser) read(body []byte) (after []byte, complete bool) {
	for {
		at := bytes.IndexByte(body, '<')
		if at < 0 {
			return nil, false
		}
		p.content(body[:at])
		body = body[at:]
		end := 1 + bytes.IndexAny(body[1:], "<>\n")
		if end == 0 {
			return nil, false
		}
		tag := body[1:end]
		if body[end] != '>' || len(tag) == 0 || tag[0] == ' ' {
			p.content(body[:end])
			body = body[end:]
			continue
		}
		body = body[end+1:]
		switch name := string(tag); {
		case name == "/"+document:
			p.message()
			return body, true
		case name == clocks: // nine tenths of the text, and none of it is used
			if _, body, complete = bytes.Cut(body, []byte(clocksEnd)); !complete {
				return nil, false
			}
		case tag[0] == '!' || tag[0] == '?': // a comment
		case tag[0] == '/':
			p.end(strings.TrimSpace(name[1:]))
		default:
			name, closed := strings.CutSuffix(name, "/")
			name, attributes, _ := strings.Cut(name, " ")
			p.start(name, attributes)
			if closed {
				p.end(name)
			}
		}
	}
}

// content takes text between two tags.
func (p *smiParser) content(text []byte) {
	if len(p.text) < 4*maxFactText {
		p.text = append(p.text, text...)
	}
}

func (p *smiParser) message() {
	if len(p.log.messages) < maxMessages {
		p.log.messages = append(p.log.messages, lines(p.text)...)
	}
	p.text = p.text[:0]
}

func (p *smiParser) start(name, attributes string) {
	p.message()
	p.leaf = true
	switch {
	case !p.inGPU && name == document:
		return
	case !p.inGPU && name == "gpu":
		p.inGPU, p.path, p.gpu = true, nil, smiGPU{facts: facts{}}
		p.in, p.base = p.gpu.facts, 0
		if _, id, ok := strings.Cut(attributes, `id="`); ok {
			id, _, _ = strings.Cut(id, `"`)
			p.gpu.bus = NormalBus(id)
		}
		return
	}
	if p.path = append(p.path, name); !p.inGPU {
		return
	}
	switch name {
	case "mig_device", "process_info", "accounted_processes":
	default:
		return
	}
	switch strings.Join(p.path[:min(len(p.path), maxDepth)], "/") {
	case "mig_devices/mig_device":
		p.in, p.base = facts{}, len(p.path)
		if len(p.gpu.migs) < hivebeat.MaxInstances {
			p.gpu.migs = append(p.gpu.migs, p.in)
		}
	case "processes/process_info", "compute_processes/process_info": // the latter before 2014
		p.in, p.base = facts{}, len(p.path)
		if p.procs < maxProcesses {
			p.gpu.procs = append(p.gpu.procs, p.in)
			p.procs++
		}
	case "accounted_processes":
		p.in, p.base = facts{}, len(p.path) // processes that have ended: not kept
	}
}

// unescape replaces the entities of XML; anything else that begins with & stays.
var unescape = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&apos;", "'", "&amp;", "&")

func (p *smiParser) end(name string) {
	if !p.leaf {
		p.message()
	}
	leaf, text := p.leaf, unescape.Replace(string(p.text))
	p.text, p.leaf = p.text[:0], false
	at := len(p.path) - 1
	for at >= 0 && p.path[at] != name {
		at-- // a message looked like the beginning of an element
	}
	switch {
	case at < 0 && name == "gpu" && p.inGPU:
		if len(p.log.gpus) < hivebeat.MaxGPUs {
			p.log.gpus = append(p.log.gpus, p.gpu)
		} else {
			p.log.tooMany = true
		}
		p.inGPU, p.path = false, nil
		return
	case at < 0:
		return // it looked like the end of one
	case p.inGPU && leaf && len(p.path) > p.base && len(p.path) <= maxDepth:
		p.in.add(strings.Join(p.path[p.base:], "/"), text)
	case !p.inGPU && leaf && name == "driver_version" && !absent(text):
		p.log.driver = oneLine(text, hivebeat.MaxHostText)
	case !p.inGPU && leaf && name == "attached_gpus":
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n >= 0 {
			p.log.attached = n
		}
	}
	if p.path = p.path[:at]; p.inGPU && at < p.base {
		p.in, p.base = p.gpu.facts, 0
	}
}

// bare returns the text of a field without brackets and unit, in lower case.
func bare(s string) string {
	s = strings.ToLower(strings.Trim(strings.TrimSpace(s), "[]"))
	for _, unit := range []string{" mib", " w", " c", " %"} {
		s = strings.TrimSuffix(s, unit)
	}
	return strings.Trim(s, "[] ")
}

// absent reports whether the value of a field says that the GPU does not have it: a card in
// MIG mode has no utilization, a small one no power meter. That is no fault.
func absent(s string) bool {
	switch bare(s) {
	case "", "n/a", "not supported", "insufficient permissions", "not available", "not found", "function not found",
		"requested functionality has been deprecated":
		return true
	}
	return false
}

// amount returns the number of a field times unit; ok is false if the field is absent. Text
// that is neither a number nor a word for absence is an error, which quotes it.
func (f facts) amount(unit float64, paths ...string) (n float64, ok bool, err error) {
	path, s := f.first(paths...)
	if s == "" {
		return 0, false, nil
	}
	number, _, _ := strings.Cut(s, " ")
	v, err := strconv.ParseFloat(number, 64)
	if v *= unit; err != nil || !(v >= -hivebeat.MaxInt && v <= hivebeat.MaxInt) {
		return 0, false, fmt.Errorf("%s: %s", path, s)
	}
	return v, true, nil
}
