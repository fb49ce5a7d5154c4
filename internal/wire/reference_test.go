package wire

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/beatfabric/hivebeat"
)

// The reference is docs/PROTOCOL.md written down a second time, as tables over the
// interface values that msgpack/v5 decodes. It shares only the scan with the parsers:
// without the scan, hostile bytes must not be passed to msgpack/v5.

// rule checks one value and returns the reason to refuse it, or "".
type rule func(v any) hivebeat.Reason

func asInt(v any) (n float64, ok bool) { // exact up to 2^53, and monotonic beyond
	switch v := v.(type) {
	case int8:
		return float64(v), true
	case int16:
		return float64(v), true
	case int32:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint8:
		return float64(v), true
	case uint16:
		return float64(v), true
	case uint32:
		return float64(v), true
	case uint64:
		return float64(v), true
	}
	return 0, false
}

func isInt(v any) hivebeat.Reason {
	n, ok := asInt(v)
	switch {
	case !ok:
		return hivebeat.RefusedType
	case math.Abs(n) > hivebeat.MaxInt:
		return hivebeat.RefusedLimit
	}
	return ""
}

func isUint(most float64) rule {
	return func(v any) hivebeat.Reason {
		n, ok := asInt(v)
		switch {
		case !ok || n < 0:
			return hivebeat.RefusedType
		case n > most:
			return hivebeat.RefusedLimit
		}
		return ""
	}
}

func isStr(most int) rule {
	return func(v any) hivebeat.Reason {
		s, ok := v.(string)
		switch {
		case !ok:
			return hivebeat.RefusedType
		case len(s) > most:
			return hivebeat.RefusedLimit
		}
		return ""
	}
}

func isBin(most int) rule {
	return func(v any) hivebeat.Reason {
		s, ok := v.([]byte)
		switch {
		case !ok:
			return hivebeat.RefusedType
		case len(s) > most:
			return hivebeat.RefusedLimit
		}
		return ""
	}
}

func isBool(v any) hivebeat.Reason {
	if _, ok := v.(bool); !ok {
		return hivebeat.RefusedType
	}
	return ""
}

func isFloat(v any) hivebeat.Reason {
	var f float64
	switch v := v.(type) {
	case float32:
		f = float64(v)
	case float64:
		f = v
	default:
		return isInt(v)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return hivebeat.RefusedLimit
	}
	return ""
}

func isList(most int, elem rule) rule {
	return func(v any) hivebeat.Reason {
		list, ok := v.([]any)
		if !ok {
			return hivebeat.RefusedType
		}
		if len(list) > most {
			return hivebeat.RefusedLimit
		}
		for _, e := range list {
			if r := elem(e); r != "" {
				return r
			}
		}
		return ""
	}
}

func isTextMap(most, key, val int) rule {
	return func(v any) hivebeat.Reason {
		m, ok := v.(map[string]any)
		if !ok {
			return hivebeat.RefusedType
		}
		if len(m) > most {
			return hivebeat.RefusedLimit
		}
		for k, e := range m {
			if r := isStr(val)(e); r != "" {
				return r
			}
			if len(k) > key {
				return hivebeat.RefusedLimit
			}
		}
		return ""
	}
}

// isMap checks the known keys of a map; required keys must be present and not zero.
func isMap(known map[string]rule, required ...string) rule {
	return func(v any) hivebeat.Reason {
		m, ok := v.(map[string]any)
		if !ok {
			return hivebeat.RefusedType
		}
		for k, e := range m {
			if check := known[k]; check != nil {
				if r := check(e); r != "" {
					return r
				}
			}
		}
		for _, k := range required {
			if n, ok := asInt(m[k]); m[k] == nil || m[k] == "" || ok && n == 0 {
				return hivebeat.RefusedMissing
			}
		}
		return ""
	}
}

func isID(v any) hivebeat.Reason {
	s, ok := v.(string)
	switch {
	case !ok:
		return hivebeat.RefusedType
	case s != "" && hivebeat.CheckID("id", s) != nil:
		return hivebeat.RefusedID
	}
	return ""
}

func isEvery(v any) hivebeat.Reason {
	n, ok := asInt(v)
	switch {
	case !ok || n < 0:
		return hivebeat.RefusedType
	case n != 0 && n < 100 || n > 3_600_000:
		return hivebeat.RefusedLimit
	}
	return ""
}

func isShare(v any) hivebeat.Reason {
	if why := isFloat(v); why != "" {
		return why
	}
	if f := reflect.ValueOf(v); f.CanFloat() && (f.Float() < 0 || f.Float() > 1) || f.CanInt() && (f.Int() < 0 || f.Int() > 1) || f.CanUint() && f.Uint() > 1 {
		return hivebeat.RefusedLimit
	}
	return ""
}

func join(tables ...map[string]rule) map[string]rule {
	all := map[string]rule{}
	for _, t := range tables {
		for k, r := range t {
			all[k] = r
		}
	}
	return all
}

var (
	anyUint = isUint(hivebeat.MaxInt)

	refFacts = map[string]rule{
		"inc": anyUint, "every": isEvery, "state": isStr(32), "reason": isStr(256), "quiet": isUint(600_000),
		"pid": anyUint, "ns": isStr(128), "host": isStr(256), "conn": isStr(128), "rw": anyUint, "model": isStr(256), "endpoint": isStr(512),
		"gpus": isList(64, isStr(64)), "slots": anyUint, "need": anyUint, "labels": isTextMap(32, 63, 128), "data": isBin(1024),
		"engine": isStr(64), "ver": isStr(64), "ctx": anyUint, "kv_cap": anyUint, "exit": isStr(64), "cold": isList(64, isStr(256)),
		"lora":   isMap(map[string]rule{"max": anyUint, "on": isList(32, isStr(128)), "wait": isList(32, isStr(128))}),
		"tokens": anyUint, "kv": isShare, "probed": anyUint,
		"seq": anyUint, "sent": isInt, "vram": anyUint, "busy": anyUint, "queue": anyUint, "done": anyUint,
	}
	refBeat = isMap(join(refFacts, map[string]rule{"v": isInt, "hive": isID, "worker": isID}),
		"hive", "worker", "inc", "seq", "every")

	refTransition = isMap(map[string]rule{
		"n": anyUint, "kind": isStr(32), "from": isStr(32), "to": isStr(32), "cause": isStr(32), "inc": anyUint, "detect": anyUint, "margin": anyUint, "ago": anyUint,
	}, "n", "kind", "inc")
	refRecord = isMap(join(refFacts, map[string]rule{
		"worker": isID, "live": isStr(32), "cause": isStr(32), "n": anyUint, "tr": isList(8, refTransition), "missed": anyUint,
		"stalled": isBool, "rival": anyUint, "rival_at": isMap(map[string]rule{"host": isStr(256), "pid": anyUint, "conn": isStr(128), "addr": isStr(128)}),
		"addr": isStr(128), "age": anyUint, "since": anyUint, "closed": isBool, "restarts": anyUint, "looping": isBool, "rate": isFloat, "tps": isFloat,
		"on": isList(64, isStr(64)), "fault": isStr(256),
		"os": isMap(map[string]rule{
			"rss": anyUint, "cpu": isFloat, "vram": anyUint, "up": anyUint, "read": anyUint,
			"procs": anyUint, "threads": anyUint, "files": anyUint, "mem_max": anyUint, "oom": anyUint,
		}),
	}), "worker", "live", "inc", "seq", "every")
	refSnapshot = isMap(map[string]rule{
		"worker": func(any) hivebeat.Reason { return hivebeat.RefusedForeign }, // the key of a beat
		"v":      isInt, "hive": isID, "inc": anyUint, "every": isEvery, "seq": anyUint, "sent": isInt, "warm": isBool,
		"page": isUint(1000), "pages": isUint(1000), "bye": isStr(256), "conn": isStr(128), "rw": anyUint, "pid": anyUint, "labels": isTextMap(32, 63, 128),
		"host": isMap(map[string]rule{
			"name": isStr(256), "os": isStr(256), "arch": isStr(256), "cpus": anyUint, "load1": isFloat, "cpu": isFloat,
			"mem_total": anyUint, "mem_used": anyUint, "uptime": anyUint, "kernel": isStr(256), "driver": isStr(256),
			"cache_total": anyUint, "cache_free": anyUint, "store_total": anyUint, "store_free": anyUint,
		}),
		"gpus": isList(64, isMap(map[string]rule{
			"uuid": isStr(64), "index": anyUint, "name": isStr(256), "total": anyUint, "used": anyUint, "ours": anyUint,
			"util": anyUint, "temp": isInt, "power": anyUint, "age": anyUint, "err": isStr(256),
			"bus": isStr(64), "orphaned": anyUint, "orphan_of": isStr(64), "unattributed": anyUint, "reserved": anyUint, "unified": isBool, "mig": isBool,
			"state": isStr(32), "cause": isStr(32), "evidence": isStr(256), "action": isStr(32), "since": anyUint, "boots": anyUint,
			"instances": isList(16, isMap(map[string]rule{
				"uuid": isStr(64), "profile": isStr(64), "gi": anyUint, "ci": anyUint, "total": anyUint, "used": anyUint, "ours": anyUint,
				"orphaned": anyUint, "unattributed": anyUint, "reserved": anyUint,
			})),
		})),
		"vram_budget": anyUint, "gpu_n": anyUint,
		"gpu_tr": isList(32, isMap(map[string]rule{
			"n": anyUint, "kind": isStr(32), "gpu": isStr(64), "index": anyUint, "from": isStr(32), "to": isStr(32), "cause": isStr(32),
			"evidence": isStr(256), "action": isStr(32), "worker": isStr(64), "asker": isStr(64), "ago": anyUint,
		}, "n", "kind", "gpu")),
		"collect": isTextMap(16, 63, 256),
		"stats": isMap(map[string]rule{
			"beats": anyUint, "refused": anyUint, "stale": anyUint, "wire_lost": anyUint, "false_dead": anyUint, "cut_off": anyUint, "self_pause": anyUint,
		}),
		"workers": isList(10_000, refRecord),
	}, "hive", "inc", "seq", "every")
)

// reference decodes b into dst with msgpack/v5, after the tables accepted it.
func reference(t *testing.T, b []byte, most int, table rule, dst any) bool {
	t.Helper()
	if len(b) > most || Scan(b) != nil {
		return false
	}
	tree, err := msgpack.NewDecoder(bytes.NewReader(b)).DecodeInterface()
	if err != nil {
		t.Fatalf("msgpack/v5 refuses what the scan accepts: %v: %x", err, b)
	}
	m, ok := tree.(map[string]any)
	if !ok || table(m) != "" {
		return false
	}
	if v, _ := asInt(m["v"]); v != 1 {
		return false
	}
	if err := msgpack.Unmarshal(b, dst); err != nil {
		t.Fatalf("msgpack/v5 refuses what its tables accept: %v: %x", err, b)
	}
	return true
}

func FuzzBeat(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want hivebeat.Beat
		ok := reference(t, b, hivebeat.MaxBeat, refBeat, &want)
		got, err := DecodeBeat(bytes.Clone(b))
		agree(t, b, ok, err, want, got)
	})
}

func FuzzSnapshot(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want hivebeat.Snapshot
		ok := reference(t, b, len(b), refSnapshot, &want)
		if want.Pages == 0 {
			want.Pages = 1
		}
		ok = ok && want.Page < want.Pages
		got, err := DecodeSnapshot(bytes.Clone(b))
		agree(t, b, ok, err, want, got)
	})
}

func agree(t *testing.T, b []byte, ok bool, err error, want, got any) {
	t.Helper()
	if ok != (err == nil) {
		t.Fatalf("the reference accepts: %v, the parser says: %v\n%x", ok, err, b)
	}
	if err != nil {
		if r := hivebeat.ReasonOf(err); r == "" {
			t.Fatalf("no reason in %v", err)
		}
		return
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("reference - parser +:\n%s\n%x", d, b)
	}
}

// FuzzScan compares the scan with a walk by msgpack/v5's own primitives.
func FuzzScan(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		want := walk(msgpack.NewDecoder(r), r, 0) && r.Len() == 0
		if err := Scan(b); (err == nil) != want {
			t.Fatalf("the walk accepts: %v, the scan says: %v: %x", want, err, b)
		}
	})
}

// walk reports whether d continues with one value that the protocol allows. d reads
// from r without a buffer.
func walk(d *msgpack.Decoder, r *bytes.Reader, depth int) bool {
	c, err := d.PeekCode()
	if err != nil {
		return false
	}
	switch {
	case msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32:
		n, err := d.DecodeMapLen()
		if err != nil || n > r.Len() || depth == hivebeat.MaxDepth {
			return false
		}
		seen := map[string]bool{}
		for range n {
			if c, err := d.PeekCode(); err != nil || !isStrCode(c) {
				return false
			}
			k, ok := walkStr(d, r)
			if !ok || seen[k] {
				return false
			}
			seen[k] = true
			if !walk(d, r, depth+1) {
				return false
			}
		}
		return true
	case msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32:
		n, err := d.DecodeArrayLen()
		if err != nil || n > r.Len() || depth == hivebeat.MaxDepth {
			return false
		}
		for range n {
			if !walk(d, r, depth+1) {
				return false
			}
		}
		return true
	case isStrCode(c):
		_, ok := walkStr(d, r)
		return ok
	case msgpcode.IsExt(c) || c == 0xc1:
		return false
	}
	return d.Skip() == nil
}

func isStrCode(c byte) bool {
	return msgpcode.IsFixedString(c) || c == msgpcode.Str8 || c == msgpcode.Str16 || c == msgpcode.Str32
}

func walkStr(d *msgpack.Decoder, r *bytes.Reader) (string, bool) {
	n, err := d.DecodeBytesLen()
	if err != nil || n > r.Len() {
		return "", false
	}
	b := make([]byte, n)
	if err := d.ReadFull(b); err != nil {
		return "", false
	}
	return string(b), utf8.Valid(b)
}
