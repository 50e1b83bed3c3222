package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/action"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// newDiscover lists the hosts of a flake without building any.
func newDiscover() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "discover [flags] [FLAKE]",
		Short: "List the nixosConfigurations of a flake without building them",
		Long: `List the nixosConfigurations of a flake with their systems and derivations. Nothing is built. A host that does not
evaluate is listed with its error. Exit status 1: the flake has no nixosConfigurations, or is none.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("discover takes one FLAKE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			flake := "."
			if len(args) == 1 {
				flake = args[0]
			}
			hosts, err := action.Discover(cmd.Context(), &nixcli.Nix{}, flake)
			if err != nil {
				return err
			}
			if asJSON {
				return writeHostsJSON(cmd.OutOrStdout(), hosts)
			}
			return writeHostsTable(cmd.OutOrStdout(), hosts)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of {name, system, drv_path, out_path, error}")
	return cmd
}

func writeHostsJSON(w io.Writer, hosts []nixcli.Host) error {
	type row struct {
		Name    string `json:"name"`
		System  string `json:"system,omitempty"`
		DrvPath string `json:"drv_path,omitempty"`
		OutPath string `json:"out_path,omitempty"`
		Error   string `json:"error,omitempty"`
	}
	rows := make([]row, len(hosts))
	for i, h := range hosts {
		rows[i] = row{Name: h.Name, System: h.System, DrvPath: h.DrvPath, OutPath: h.OutPath}
		if h.Err != nil {
			rows[i].Error = h.Err.Error()
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(rows); err != nil {
		return fmt.Errorf("print hosts: %w", err)
	}
	return nil
}

func writeHostsTable(w io.Writer, hosts []nixcli.Host) error {
	rows := make([][]string, len(hosts))
	for i, h := range hosts {
		last := h.OutPath
		if h.Err != nil {
			last = "error: " + h.Err.Error()
		}
		rows[i] = []string{h.Name, h.System, last}
	}
	if _, err := io.WriteString(w, report.Table([]string{"host", "system", "store path"}, rows)); err != nil {
		return fmt.Errorf("print hosts: %w", err)
	}
	return nil
}
