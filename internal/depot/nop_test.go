package depot
import ("context";"github.com/org/attic-action/internal/ledger")
type nopJ struct{}
func (nopJ) Append(context.Context, uint64, []ledger.Record) error { return nil }
