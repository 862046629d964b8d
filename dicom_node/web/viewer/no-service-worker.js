// OHIF's own file would load a library from another host. The viewer needs no service worker: one that is still there
// from another application on this address is removed.
if ('serviceWorker' in navigator) {
  navigator.serviceWorker.getRegistrations().then(found => found.forEach(one => one.unregister()));
}
