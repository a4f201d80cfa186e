package config

import (
	"errors"
	"io/fs"
	"strconv"

	"github.com/os-rescue/os-rescue/recover"
)

const profileKey = "owners.profile"

// ownerKind is one row of the owner table.
type ownerKind struct {
	name string
	rule func(*recover.OwnerTable) *recover.OwnerRule
}

func ownerKinds() []ownerKind {
	return []ownerKind{
		{"instances_dir", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.InstancesDir }},
		{"base_dir", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.BaseDir }},
		{"instance_dir", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.InstanceDir }},
		{"locks_dir", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.LocksDir }},
		{"base", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.Base }},
		{"disk", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.Disk }},
		{"config_drive", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.ConfigDrive }},
		{"console_log", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.ConsoleLog }},
		{"disk_info", func(t *recover.OwnerTable) *recover.OwnerRule { return &t.DiskInfo }},
	}
}

func ownerKeys() []string {
	keys := []string{profileKey}
	for _, k := range ownerKinds() {
		for _, column := range []string{"user", "group", "mode"} {
			keys = append(keys, ownerKey(k, column))
		}
	}
	return keys
}

func ownerKey(k ownerKind, column string) string { return "owners." + k.name + "." + column }

// ownerTable returns the table of the profile, with the configured values in place of
// its own.
func ownerTable(l *layers) (recover.OwnerTable, error) {
	profile, where := l.lookup(setting{key: profileKey, value: "debian"})
	var table recover.OwnerTable
	switch profile {
	case "debian":
		table = recover.DebianOwners()
	case "redhat":
		table = recover.RedHatOwners()
	case "kolla":
		table = recover.KollaOwners()
	case "auto":
		table = recover.DebianOwners()
		table.Auto = true
	default:
		return table, invalid(profileKey, profile, where, errors.New("it must be one of debian, redhat, kolla, auto"))
	}
	for _, k := range ownerKinds() {
		rule := k.rule(&table)
		for column, set := range map[string]func(any) error{
			"user":  name(&rule.User),
			"group": name(&rule.Group),
			"mode":  mode(&rule.Mode),
		} {
			key := ownerKey(k, column)
			if !l.isSet(key) {
				continue
			}
			value, where := l.lookup(setting{key: key})
			if err := set(value); err != nil {
				return table, invalid(key, value, where, err)
			}
		}
	}
	return table, nil
}

func name(to *string) func(any) error {
	return func(value any) error {
		s, err := str(value)
		if err == nil && s == "" {
			err = errors.New("it must not be empty")
		}
		if err == nil {
			*to = s
		}
		return err
	}
}

// mode accepts only text: YAML turns 0644 into a number, which no longer shows whether
// it was written in octal.
func mode(to *fs.FileMode) func(any) error {
	return func(value any) error {
		s, ok := value.(string)
		n, err := strconv.ParseUint(s, 8, 32)
		if !ok || err != nil || n > 0o777 {
			return errors.New(`it must be a mode in octal, in quotes: "0644"`)
		}
		*to = fs.FileMode(n)
		return nil
	}
}
