# Copies the files of one installed Debian package into a store path; run by Nix with $package, $deps and $out set.
# Its programs and libraries name its dependencies by store path, as on NixOS: the list is appended to them, where the
# loader does not look, and scripts get it as a comment.
PATH=/usr/bin:/bin
set -eu
umask 022
mkdir -p "$out"
dpkg -L "$package" | while read -r file; do
  case $file in /usr/share/doc/* | /usr/share/locale/*) continue ;; esac
  [ -f "$file" ] || [ -L "$file" ] || continue
  [ ! -d "$file" ] || continue # /lib, a link to /usr/lib where /usr is merged
  mkdir -p "$out${file%/*}"
  # A package lists /bin/x where a merged /usr has /usr/bin/x; two names of one file are one file here.
  [ -e "$out$file" ] || cp -P --no-preserve=all "$file" "$out$file"
  [ ! -x "$file" ] || [ -L "$file" ] || chmod 755 "$out$file"
done
find "$out" -type f -size +8k \( -perm -100 -o -name '*.so*' \) | while read -r file; do
  case $(head -c 4 "$file" | tr -d '\0') in
    ?ELF) printf '\0RUNPATH=%s/lib:%s\0' "$out" "$deps" >>"$file" ;;
    '#!'*) printf '\n# needs %s\n' "$deps" >>"$file" ;;
  esac
done
mkdir -p "$out/nix-support"
echo "$deps" >"$out/nix-support/depends"
