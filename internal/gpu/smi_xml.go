package gpu

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
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
	err      error    // why the XML could not be read to its end
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
	xmlBegin    = "<nvidia_smi_log"
	xmlEnd      = "</nvidia_smi_log>"
	clocksBegin = "<supported_clocks>"
	clocksEnd   = "</supported_clocks>"
)

// parseSMI parses the output of nvidia-smi -q -x of any generation (nvsmi_device_v4 to
// v13): they add and rename fields, and keep the frame. It keeps the GPUs before a place
// that it cannot read.
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
	body, after, complete := bytes.Cut(out[begin:], []byte(xmlEnd))
	p := smiParser{log: &log}
	d := xml.NewDecoder(bytes.NewReader(withoutClocks(body)))
	d.Strict = false // a message between two lines of XML may hold a & or a <
	for {
		t, err := d.RawToken()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				log.err = err
			}
			break
		}
		p.token(t)
	}
	log.complete = complete && log.err == nil && !p.inGPU
	log.messages = append(log.messages, lines(after)...)
	return log
}

// withoutClocks removes the lists of supported clocks: nine tenths of the text, and none of
// it is used.
func withoutClocks(b []byte) []byte {
	var kept []byte
	for {
		before, after, ok := bytes.Cut(b, []byte(clocksBegin))
		kept = append(kept, before...)
		if !ok {
			return kept
		}
		if _, b, ok = bytes.Cut(after, []byte(clocksEnd)); !ok {
			return kept // the output breaks off within the list
		}
	}
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

func (p *smiParser) token(t xml.Token) {
	switch t := t.(type) {
	case xml.StartElement:
		p.message()
		p.start(t)
		p.leaf = true
	case xml.EndElement:
		if !p.leaf {
			p.message()
		}
		p.end(t.Name.Local, string(p.text))
		p.text, p.leaf = p.text[:0], false
	case xml.CharData:
		if len(p.text) < 4*maxFactText {
			p.text = append(p.text, t...)
		}
	}
}

func (p *smiParser) message() {
	if len(p.log.messages) < maxMessages {
		p.log.messages = append(p.log.messages, lines(p.text)...)
	}
	p.text = p.text[:0]
}

func (p *smiParser) start(e xml.StartElement) {
	name := e.Name.Local
	switch {
	case !p.inGPU && name == xmlBegin[1:]:
		return
	case !p.inGPU && name == "gpu":
		p.inGPU, p.path, p.gpu = true, nil, smiGPU{facts: facts{}}
		p.in, p.base = p.gpu.facts, 0
		for _, a := range e.Attr {
			if a.Name.Local == "id" {
				p.gpu.bus = NormalBus(a.Value)
			}
		}
		return
	}
	if p.path = append(p.path, name); !p.inGPU {
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

func (p *smiParser) end(name, text string) {
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
	case p.inGPU && p.leaf && len(p.path) > p.base && len(p.path) <= maxDepth:
		p.in.add(strings.Join(p.path[p.base:], "/"), text)
	case !p.inGPU && p.leaf && name == "driver_version" && !absent(text):
		p.log.driver = oneLine(text, hivebeat.MaxHostText)
	case !p.inGPU && p.leaf && name == "attached_gpus":
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
