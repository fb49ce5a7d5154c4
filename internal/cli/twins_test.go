package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A machine has one environment, for its roles and for commands. A variable that both use
// must mean the same in both; otherwise a role's setting changes what a command prints.
func TestTwinsOfAskersAreNotThoseOfRoles(t *testing.T) {
	roles := []string{"up", "worker", "sidecar", "hive", "queen"}
	// Where NATS is, and which credentials to use.
	connection := []string{
		"HIVEBEAT_CONTEXT", "HIVEBEAT_CREDS", "HIVEBEAT_NATS", "HIVEBEAT_NKEY", "HIVEBEAT_PREFIX",
		"HIVEBEAT_TLS_CA", "HIVEBEAT_TLS_CERT", "HIVEBEAT_TLS_KEY",
	}
	shared := map[string][]string{
		"ls": connection, "get": connection, "events": connection, "pick": connection, "forget": connection, "drain": connection, "undrain": connection, "silence": connection, "unsilence": connection, "wait": connection, "watch": connection, "top": connection,
		"decode": nil, "sim": nil, "version": nil,
		// doctor checks what a role with these settings needs.
		"doctor": append(slices.Clone(connection),
			"HIVEBEAT_DISCOVER", "HIVEBEAT_HIVE", "HIVEBEAT_PINNED", "HIVEBEAT_SYSTEM_CREDS", "HIVEBEAT_SYSTEM_NATS",
			"HIVEBEAT_EVENTS_MAX", "HIVEBEAT_NO_JETSTREAM", "HIVEBEAT_REPLICAS", "HIVEBEAT_STORAGE"),
	}

	var bad *badValue
	parser, err := newConsole(Streams{Out: new(strings.Builder), Err: new(strings.Builder)}).parser(t.Context(), &bad)
	if err != nil {
		t.Fatal(err)
	}
	twins := make(map[string][]string) // by command
	for _, node := range parser.Model.Children {
		for _, f := range node.Flags {
			if len(f.Envs) != 1 && f.Name != "help" && f.Name != "version" {
				t.Errorf("%s --%s has no twin, or several: %v", node.Name, f.Name, f.Envs)
			}
			twins[node.Name] = append(twins[node.Name], f.Envs...)
		}
	}
	ofRoles := make(map[string]bool)
	for _, role := range roles {
		if len(twins[role]) == 0 {
			t.Errorf("%s has no flags?", role)
		}
		for _, twin := range twins[role] {
			ofRoles[twin] = true
		}
		delete(twins, role)
	}
	for command, own := range twins {
		want, ok := shared[command]
		if !ok {
			t.Errorf("is %s a role, or does it ask?", command)
		}
		got := slices.DeleteFunc(own, func(twin string) bool { return !ofRoles[twin] })
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(slices.Compact(want), slices.Compact(got)); len(want)+len(got) > 0 && diff != "" {
			t.Errorf("twins that %s has in common with roles (-want +got):\n%s", command, diff)
		}
	}
}
