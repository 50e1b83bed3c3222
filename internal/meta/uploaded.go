package meta

import "fmt"

// PutUploadedFile notes that a file with a compressed NAR, by its SHA-256, became a
// path of the cache. It goes with the path, and with the database.
func (tx *Tx) PutUploadedFile(cacheID int64, file [32]byte, hash string) error {
	_, err := tx.exec("INSERT INTO uploaded_files (cache_id, file, hash) VALUES ($1, $2, $3) ON CONFLICT (cache_id, file, hash) DO NOTHING",
		cacheID, file[:], hash)
	if err != nil {
		return fmt.Errorf("note uploaded file of %s: %w", hash, err)
	}
	return nil
}

// UploadedFile is the hash of a path that a file became: ErrNotFound if there is
// none.
func (tx *Tx) UploadedFile(cacheID int64, file [32]byte) (hash string, err error) {
	err = tx.one("SELECT hash FROM uploaded_files WHERE cache_id = $1 AND file = $2 ORDER BY hash LIMIT 1", []any{cacheID, file[:]}, &hash)
	if err != nil {
		return "", fmt.Errorf("look for uploaded file: %w", err)
	}
	return hash, nil
}
