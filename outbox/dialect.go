package outbox

import "github.com/evenkeel-go/evenkeel/outbox/internal/dialect"

// A Dialect tells the outbox how to talk to one database. Use the Dialect of a
// folder below this package, such as sqlite.Dialect; the interface cannot be
// implemented elsewhere, so that later versions may ask more of it. A Dialect
// is SQL text only and imports no driver.
type Dialect interface {
	// SQL returns the statements, for this package.
	SQL() *dialect.SQL
}
