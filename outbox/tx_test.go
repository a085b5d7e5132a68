package outbox_test

import (
	"database/sql"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

var (
	_ outbox.Tx = (*sql.Tx)(nil)
	_ outbox.Tx = struct{ *sql.Tx }{} // a wrapper that embeds one
)

func TestTxIsNoDBAndNoConn(t *testing.T) {
	tx := reflect.TypeFor[outbox.Tx]()
	require.True(t, reflect.TypeFor[*sql.Tx]().Implements(tx))
	require.False(t, reflect.TypeFor[*sql.DB]().Implements(tx), "Add(ctx, db, …) must not compile")
	require.False(t, reflect.TypeFor[*sql.Conn]().Implements(tx), "Add(ctx, conn, …) must not compile")
}
