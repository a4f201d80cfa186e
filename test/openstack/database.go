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
func startDatabase(ctx context.Context, b *Bed) error {
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
func makeDatabases(ctx context.Context, b *Bed, names ...string) error {
	var sql strings.Builder
	for _, name := range names {
		fmt.Fprintf(&sql, "drop database if exists %s; create database %[1]s character set utf8mb3;", name)
		fmt.Fprintf(&sql, "create user if not exists %s@'127.0.0.1' identified by '%s';", name, databaseSecret)
		fmt.Fprintf(&sql, "grant all on %s.* to %[1]s@'127.0.0.1';", name)
	}
	_, err := b.SQL(ctx, "", sql.String())
	return err
}
