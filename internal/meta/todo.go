package meta

import (
	"errors"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

var errTODO = errors.New("not written yet")

func (tx *Tx) Now() time.Time                           { return time.Time{} }
func (tx *Tx) Cache(name string) (*Cache, error)        { return nil, errTODO }
func (tx *Tx) Caches() ([]Cache, error)                 { return nil, errTODO }
func (tx *Tx) CreateCache(c *Cache) error               { return errTODO }
func (tx *Tx) UpdateCache(c *Cache) error               { return errTODO }
func (tx *Tx) DeleteCache(name string, soft bool) error { return errTODO }
func (tx *Tx) NARByForm(form [32]byte) (*NAR, error)    { return nil, errTODO }

// NARLayout reads the Layout that Path leaves out.
func (tx *Tx) NARLayout(id int64) ([]byte, error)                    { return nil, errTODO }
func (tx *Tx) InsertNAR(n *NAR, rec ledger.NAR) error                { return errTODO }
func (tx *Tx) FindNARs(hash nix.Hash, caches []int64) ([]NAR, error) { return nil, errTODO }

// Path: the NAR comes without its Layout, see NARLayout.
func (tx *Tx) Path(cacheID int64, hash string) (*Path, *NAR, error)               { return nil, nil, errTODO }
func (tx *Tx) MissingPaths(cacheID int64, hashes []string) ([]string, error)      { return nil, errTODO }
func (tx *Tx) PutPath(p *Path, rec ledger.Path) error                             { return errTODO }
func (tx *Tx) DeletePath(cacheID int64, hash string) error                        { return errTODO }
func (tx *Tx) TouchPaths(cacheID int64, hashes []string, at time.Time) error      { return errTODO }
func (tx *Tx) SetComplete(cacheID int64, hashes []string) error                   { return errTODO }
func (tx *Tx) InsertPack(p *Pack, entries []pack.Entry) error                     { return errTODO }
func (tx *Tx) Pack(id int64) (*Pack, error)                                       { return nil, errTODO }
func (tx *Tx) PackKeys(ids []int64) (map[int64]string, error)                     { return nil, errTODO }
func (tx *Tx) FindPack(sha [32]byte, cache int64) (*Pack, error)                  { return nil, errTODO }
func (tx *Tx) Locate(caches []int64, ids []chunk.ID) ([]Place, error)             { return nil, errTODO }
func (tx *Tx) Show(cacheID, packID int64, entries []int32, until time.Time) error { return errTODO }
func (tx *Tx) StagePieces(cacheID int64, hash string, nar nix.Hash, offset int64, data []byte) (total int64, err error) {
	return 0, errTODO
}
func (tx *Tx) StagedPieces(cacheID int64, hash string, nar nix.Hash) ([]byte, error) {
	return nil, errTODO
}
func (tx *Tx) DropStaged(cacheID int64, hash string, nar nix.Hash) error { return errTODO }
func (tx *Tx) SeenToken(issuer, jti string, until time.Time) error       { return errTODO }
