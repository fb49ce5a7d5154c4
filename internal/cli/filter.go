package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// The environment variables of flags that filter, here and in the commands, start with
// HIVEBEAT_FILTER_: a worker's HIVEBEAT_MODEL must not filter the lists on its machine.

// PlaceFlags say what a worker or hive must have, for a list or a pick.
type PlaceFlags struct {
	Model     string        `placeholder:"GLOB" env:"HIVEBEAT_FILTER_MODEL" help:"Serves a model that matches this glob: * is any text, ? one character." group:"Filter"`
	Zone      string        `placeholder:"Z" env:"HIVEBEAT_FILTER_ZONE" help:"In this zone." group:"Filter"`
	Selector  string        `placeholder:"EXPR" env:"HIVEBEAT_FILTER_SELECTOR" help:"Label selector, as in Kubernetes: gpu,tier!=dev,disk in (ssd,nvme)." group:"Filter"`
	FreeVRAM  byteSize      `name:"free-vram" placeholder:"SIZE" env:"HIVEBEAT_FILTER_FREE_VRAM" help:"At least this much VRAM is free on one GPU: bytes, or a number with M, G, MiB or GiB." group:"Filter"`
	FreeDisk  byteSize      `placeholder:"SIZE" env:"HIVEBEAT_FILTER_FREE_DISK" help:"At least this much is free on the file system of the model cache." group:"Filter"`
	Driver    string        `placeholder:"GLOB" env:"HIVEBEAT_FILTER_DRIVER" help:"Version of the GPU driver, such as 550.*." group:"Filter"`
	Kernel    string        `placeholder:"GLOB" env:"HIVEBEAT_FILTER_KERNEL" help:"Release of the kernel." group:"Filter"`
	FreeSlots uint32        `placeholder:"N" env:"HIVEBEAT_FILTER_FREE_SLOTS" help:"At least this many slots are free." group:"Filter"`
	MaxAge    time.Duration `placeholder:"DUR" env:"HIVEBEAT_FILTER_MAX_AGE" help:"Last seen at most this long ago." group:"Filter"`
}

// Validate checks what the queen would refuse.
func (f *PlaceFlags) Validate() error {
	if f.MaxAge < 0 || f.MaxAge > 0 && f.MaxAge < time.Millisecond {
		return misused(fmt.Errorf("--max-age: %s is not a valid age", f.MaxAge), "use something like --max-age 10s")
	}
	if _, err := api.ParseSelector(f.Selector); err != nil {
		return misused(fmt.Errorf("--%w", err), "write it as in Kubernetes: 'gpu,tier!=dev,disk in (ssd,nvme)'")
	}
	for flag, text := range map[string]string{"--model": f.Model, "--zone": f.Zone, "--driver": f.Driver, "--kernel": f.Kernel} {
		if err := checkText(flag, text, hivebeat.MaxModel); err != nil {
			return err
		}
	}
	return nil
}

func (f *PlaceFlags) filter() api.Filter {
	return api.Filter{
		Model: f.Model, Zone: f.Zone, Selector: f.Selector,
		FreeVRAM: uint64(f.FreeVRAM), FreeSlots: uint64(f.FreeSlots), FreeDisk: uint64(f.FreeDisk), Driver: f.Driver, Kernel: f.Kernel,
		MaxAge: hivebeat.MillisOf(f.MaxAge),
	}
}

// FilterFlags select and sort the rows of a list.
type FilterFlags struct {
	PlaceFlags
	Live    []string `placeholder:"WORD" enum:"alive,late,lost,left,unverified" env:"HIVEBEAT_FILTER_LIVE" help:"Verdict, or several with commas: ${enum}." group:"Filter"`
	State   []string `placeholder:"WORD" env:"HIVEBEAT_FILTER_STATE" help:"State that workers report, or several with commas: ready, busy, loading …" group:"Filter"`
	Text    string   `placeholder:"TEXT" env:"HIVEBEAT_FILTER_TEXT" help:"Part of an id, a zone or a model." group:"Filter"`
	Stalled bool     `env:"HIVEBEAT_FILTER_STALLED" help:"Busy, but makes no progress." group:"Filter"`
	Sort    string   `placeholder:"KEY" env:"HIVEBEAT_FILTER_SORT" help:"Sort by this key; a leading - reverses the order, as in --sort=-age." group:"Filter"`
	Limit   *int     `placeholder:"N" env:"HIVEBEAT_FILTER_LIMIT" help:"At most this many hives and this many workers." group:"Filter"`
}

// Validate checks what can be checked without the list.
func (f *FilterFlags) Validate() error {
	if f.Limit != nil && *f.Limit < 1 {
		return misused(fmt.Errorf("--limit: %d is not a valid number of rows", *f.Limit), "use 1 or more, or leave it out to list all")
	}
	return checkText("--text", f.Text, hivebeat.MaxModel)
}

func (f *FilterFlags) filter() api.Filter {
	out := f.PlaceFlags.filter()
	out.Text, out.Stalled = f.Text, f.Stalled
	for _, l := range f.Live {
		out.Live = append(out.Live, hivebeat.Live(l))
	}
	for _, s := range f.State {
		out.State = append(out.State, hivebeat.State(s))
	}
	return out
}

// limit is the largest number of rows to list, or 0 for all.
func (f *FilterFlags) limit() int {
	if f.Limit == nil {
		return 0
	}
	return *f.Limit
}

// strange returns the words of --state that the protocol does not define. They need not be
// wrong: a worker may report any word.
func (f *FilterFlags) strange() []hivebeat.State {
	var out []hivebeat.State
	for _, s := range f.State {
		if s := hivebeat.State(s); !s.Known() {
			out = append(out, s)
		}
	}
	return out
}

// some reports whether the flags select only some of the rows.
func (f *FilterFlags) some() bool {
	return f.Model != "" || f.Zone != "" || f.Selector != "" || f.FreeVRAM > 0 || f.FreeSlots > 0 || f.FreeDisk > 0 || f.Driver != "" || f.Kernel != "" || f.MaxAge > 0 ||
		len(f.Live) > 0 || len(f.State) > 0 || f.Text != "" || f.Stalled || f.Limit != nil
}

// checkSort checks the sort key for a list of what: hives, workers, or all.
func (f *FilterFlags) checkSort(what string) error {
	if f.Sort == "" {
		return nil
	}
	keys, of := api.WorkerSortKeys, what
	more := ""
	switch what {
	case "hives":
		keys = api.HiveSortKeys
	case "all":
		keys = slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !slices.Contains(api.HiveSortKeys, k) })
		of, more = "hives and workers", "; \"ls hives\" and \"ls workers\" have more keys"
	}
	if slices.Contains(keys, strings.TrimPrefix(f.Sort, "-")) {
		return nil
	}
	return misused(fmt.Errorf("--sort: %.40q is not a sort key of %s", f.Sort, of), "sort by %s%s", strings.Join(keys, ", "), more)
}

// refused adds a hint to the error of a queen that rejects a request that this command
// considers valid: the queen may be older.
func refused(err error) error {
	if !errors.Is(err, client.ErrBadRequest) {
		return err
	}
	if _, ok := errors.AsType[*failure](err); ok {
		return err
	}
	return failed(err, "the queen may be older than this command: compare \"hivebeat version\" there and here")
}
