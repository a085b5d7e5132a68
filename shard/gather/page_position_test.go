package gather_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

type (
	stamped struct { // MarshalJSON of the time is promoted, and the ID never travels
		time.Time
		ID int64
	}
	left    struct{ ID int64 }
	right   struct{ ID int64 }
	oneName struct { // package json writes neither
		left
		right
	}
	inTheShadow struct { // and here the outer one alone
		left
		ID int64
	}
	omitting struct { // what is empty comes back as nil, which is NULL
		Bytes []byte `json:",omitempty"`
	}
	oneWay struct{ S string }
)

func (o oneWay) MarshalText() ([]byte, error) { return []byte("x" + o.S), nil }

// A position of which JSON loses a part would send the next page elsewhere.
func TestPositionsOfTypesThatLoseAPartAreRefused(t *testing.T) {
	t.Parallel()
	refused := func(err error) {
		t.Helper()
		require.Error(t, err)
		require.NotErrorIs(t, err, gather.ErrForeignCursor, "the client is not to blame")
	}
	_, err := travels(t, stamped{time.Unix(7, 0), 7})
	refused(err)
	_, err = travels(t, oneName{left{1}, right{2}})
	refused(err)
	_, err = travels(t, inTheShadow{left{1}, 2})
	refused(err)
	_, err = travels(t, omitting{Bytes: []byte{}})
	refused(err)
	_, err = travels(t, oneWay{"a"})
	refused(err)
}
