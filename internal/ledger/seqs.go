package ledger

type sequences struct{}
