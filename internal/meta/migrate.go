package meta

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"
)

//go:embed migration/*.sql
var migrations embed.FS

// migrate applies what is missing, in order, each in a transaction with the
// record of it. A database from a newer program is refused: writing to it might
// break rules that this one does not know.
func migrate(c *conn, now time.Time) error {
	names, err := fs.Glob(migrations, "migration/*.sql") // sorted
	if err != nil {
		return err
	}
	if err := c.exec("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)"); err != nil {
		return fmt.Errorf("create table migrations: %w", err)
	}
	var version int
	if err := c.c.QueryRowContext(context.Background(), "SELECT coalesce(max(version), 0) FROM migrations").Scan(&version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if version > len(names) {
		return fmt.Errorf("its schema has version %d and this program knows %d: run the newer program", version, len(names))
	}
	for i := version; i < len(names); i++ {
		if err := apply(c, names[i], i+1, now); err != nil {
			return fmt.Errorf("migrate to version %d: %w", i+1, err)
		}
	}
	return nil
}

func apply(c *conn, name string, version int, now time.Time) error {
	script, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	_, err = c.c.ExecContext(context.Background(), string(script))
	if err == nil {
		err = c.exec("INSERT INTO migrations (version, applied_at) VALUES ($1, $2)", version, stamp(now))
	}
	if err == nil {
		err = c.exec("COMMIT")
	}
	if err != nil {
		_ = c.exec("ROLLBACK") // the error before is the one to tell
		return err
	}
	return nil
}
