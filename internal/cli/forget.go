package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

type forgetCmd struct {
	AskFlags
	ID string `arg:"" name:"hive[/gpu]" help:"A hive that is lost or left, or a GPU, by its UUID, or by its index if only one GPU has that index."`
}

// Help is shown below the usage.
func (forgetCmd) Help() string {
	return `A hive that is lost or left stays listed for 7 days. forget ends that at once, for its workers too. A hive that is there
cannot be forgotten; one that returns has joined. A worker that is gone from a hive that is there is forgotten by itself
after 10 minutes.

  hivebeat forget gpu-07

A hive lists a GPU that it has seen for 7 days after it is gone, as a fault. forget ends that at once, after the GPU
was removed, and it ends a fault whose action is to replace the GPU. No other GPU can be forgotten. One that is there
is known again after the next reading.

  hivebeat forget gpu-01/3

It needs the permission to hold places. With --asker, the event forgotten or gpu-forgotten names who asked. With -o json
it prints one document {"hive":{…},"status":{…}} or {"forgot":{…},"status":{…}}.`
}

func (cmd *forgetCmd) ids() (hive, gpu string, one bool) { return strings.Cut(cmd.ID, "/") }

// Validate checks the flags and the ids.
func (cmd *forgetCmd) Validate() error {
	hive, gpu, one := cmd.ids()
	if cmd.ID != "" && (hive == "" || one && gpu == "") { // kong reports one that is missing
		return misused(fmt.Errorf("%q is neither HIVE nor HIVE/GPU", cmd.ID), "as in hivebeat forget gpu-07 or hivebeat forget gpu-01/3")
	}
	return first(checkID("hive", hive), checkText("gpu", gpu, hivebeat.MaxGPUID))
}

// Run forgets a hive, or has a hive forget a GPU.
func (cmd *forgetCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "forget", func(ctx context.Context, a *asker) error {
		hive, _, one := cmd.ids()
		if !one {
			return cmd.hive(ctx, c, a, hive)
		}
		uuid, err := cmd.uuid(ctx, a)
		if err != nil {
			return err
		}
		f, err := askOne(ctx, a, api.VerbForget, func(ctx context.Context) (client.Forgot, error) { return a.Forget(ctx, hive, uuid) })
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, "\"hivebeat get %s\" lists its GPUs, \"hivebeat ls hives\" the known hives", hive)
		case errors.Is(err, client.ErrBadRequest):
			return failed(err, "\"hivebeat get %s\" shows the state of its GPUs, and why", hive)
		case err != nil:
			return err
		}
		if cmd.json() {
			doc := newDocument(c.out)
			doc.field("forgot", &f.GPUFault)
			doc.field("status", f.Status)
			return doc.close()
		}
		return printLines(c, []string{plaintext.Line(fmt.Sprintf("%s forgets GPU %d: %s", hive, f.Index, f.GPU))})
	})
}

func (cmd *forgetCmd) hive(ctx context.Context, c *console, a *asker, id string) error {
	h, err := askOne(ctx, a, api.VerbForget, func(ctx context.Context) (client.Hive, error) { return a.ForgetHive(ctx, id) })
	switch {
	case errors.Is(err, errNotFound):
		return failed(err, listHives)
	case errors.Is(err, client.ErrBadRequest):
		return failed(err, "\"hivebeat get %s\" shows it; for a GPU of it, name that: %s/3", id, id)
	case err != nil:
		return err
	}
	if cmd.json() {
		doc := newDocument(c.out)
		doc.field("hive", &h.HiveInfo)
		doc.field("status", h.Status)
		return doc.close()
	}
	return printLines(c, []string{plaintext.Line(fmt.Sprintf("%s is forgotten: it was %s, with %s", h.Hive, h.Live, show.Plural(show.Total(h.Workers), "worker")))})
}

// uuid returns the UUID of the GPU. For an index it asks for the hive's list, in which that
// index must be unambiguous: the one that replaced a GPU may have the same index.
func (cmd *forgetCmd) uuid(ctx context.Context, a *asker) (string, error) {
	hive, gpu, _ := cmd.ids()
	index, err := strconv.ParseUint(gpu, 10, 32)
	if err != nil {
		return gpu, nil //nolint:nilerr // then it is a UUID
	}
	h, err := a.hive(ctx, hive)
	switch {
	case errors.Is(err, errNotFound):
		return "", failed(err, listHives)
	case err != nil:
		return "", err
	}
	var found []string
	for i := range h.GPUs {
		if g := &h.GPUs[i]; g.Index == index {
			found = append(found, g.UUID)
		}
	}
	switch len(found) {
	case 0:
		return "", failed(fmt.Errorf("%s has no GPU %d", hive, index), "\"hivebeat get %s\" lists its GPUs", hive)
	case 1:
		return found[0], nil
	}
	return "", misused(fmt.Errorf("%s has %s with index %d", hive, show.Plural(len(found), "GPU"), index), "use the UUID: %s", strings.Join(found, " or "))
}
