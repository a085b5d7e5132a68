package topo_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// However a connection is set up, what Publish calls done is there as it was: names beyond
// the character set of the connection, a server that is not strict, statements that the
// driver writes itself.
func TestTableOverConnectionsOfEveryKind(t *testing.T) {
	t.Parallel()
	for name, parameters := range map[string][]string{
		"mariadb": {
			"charset=latin1", "charset=utf8", "charset=utf8&sql_mode=''", "charset=utf8&sql_mode=''&interpolateParams=true", "charset=latin1&sql_mode=''",
			"interpolateParams=true", "clientFoundRows=true", "sql_mode='NO_BACKSLASH_ESCAPES'&interpolateParams=true",
		},
		"postgres": {"default_query_exec_mode=simple_protocol", "default_query_exec_mode=exec", "default_query_exec_mode=describe_exec", "client_encoding=utf8"},
	} {
		d := databases[name]
		dsn := d.dsn(t)
		separator := "?"
		if strings.Contains(dsn, "?") {
			separator = "&"
		}
		for _, p := range parameters {
			t.Run(name+"/"+p, func(t *testing.T) {
				t.Parallel()
				table := d.table(t, d.db(t, dsn+separator+p), topo.TableOptions{Name: tableOf(t), Keyspace: "ключ 🗄️ it's\\ \"", Poll: 20 * time.Millisecond})
				m, err := shard.NewMap(1, shard.Shard{Node: "база 🗄️ \\ ' \" ?", Name: "n"})
				require.NoError(t, err)
				require.NoError(t, table.Publish(soon(t), m))
				got, err := table.Load(soon(t))
				require.NoError(t, err)
				require.Equal(t, m.Digest(), got.Digest())
				next, err := m.Move("n", "x")
				require.NoError(t, err)
				require.NoError(t, table.Publish(soon(t), next))
			})
		}
	}
}
