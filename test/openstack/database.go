package openstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// startDatabase starts MariaDB, and makes its data directory before that when
// there is none.
func (b *Bed) startDatabase(ctx context.Context) error {
	data := filepath.Join(b.dir, "mysql")
	if _, err := os.Stat(filepath.Join(data, "mysql")); errors.Is(err, fs.ErrNotExist) {
		_, err := do(ctx, "", nil, "/usr/bin/mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir="+data,
			"--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=socket")
		if err != nil {
			return err
		}
	}
	return b.service(MariaDB).start(ctx)
}

// makeDatabases makes databases, empty, each with a user of the same name.
func (b *Bed) makeDatabases(ctx context.Context, names ...string) error {
	var sql strings.Builder
	for _, name := range names {
		fmt.Fprintf(&sql, "drop database if exists %s; create database %[1]s character set utf8mb3;", name)
		fmt.Fprintf(&sql, "create user if not exists %s@'127.0.0.1' identified by '%s';", name, databaseSecret)
		fmt.Fprintf(&sql, "grant all on %s.* to %[1]s@'127.0.0.1';", name)
	}
	_, err := b.SQL(ctx, "", sql.String())
	return err
}

// SQL runs statements in one of the databases (nova, nova_api, keystone, ...) as
// the database's administrator, and returns the rows: a line each, its columns
// separated by tabs, no header.
func (b *Bed) SQL(ctx context.Context, database, statements string) (string, error) {
	args := []string{
		"/usr/bin/mariadb", "--no-defaults", "--socket", databaseSocket(b.dir), "--batch", "--skip-column-names", "--execute", statements,
	}
	if database != "" {
		args = append(args, database)
	}
	return do(ctx, "", nil, args...)
}

// CellDown makes the cell that has every instance one that Nova can't reach: its
// database refuses Nova. CellUp undoes it.
func (b *Bed) CellDown(ctx context.Context) error {
	_, err := b.SQL(ctx, "", "revoke all privileges on nova.* from nova@'127.0.0.1'; kill user nova")
	return err
}

// CellUp undoes CellDown, and returns when Nova sees that its nova-compute is up:
// until then it deletes an instance without ending its domain.
func (b *Bed) CellUp(ctx context.Context) error {
	if _, err := b.SQL(ctx, "", "grant all on nova.* to nova@'127.0.0.1'; kill user nova"); err != nil {
		return err
	}
	return b.awaitHypervisor(ctx)
}
