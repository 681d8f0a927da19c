//! What this stand-in knows beyond what moto knows: which instance has which file layers and address, and which image
//! and snapshot keeps which layers.
//!
//! Pure data: starts no process and touches no file.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use crate::instance::Instance;

/// moto holds several regions, and an id means something only inside one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) region: String,
    pub(crate) id: String,
}

impl Key {
    pub(crate) fn new(region: &str, id: &str) -> Self {
        Self { region: region.to_owned(), id: id.to_owned() }
    }
}

/// One frozen layer of files, as CreateImage leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LayerId(pub(crate) u64);

/// The layers atop the base root file system, newest first.
pub(crate) type Layers = Vec<LayerId>;

/// An image made here.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// `None`: the image never had a body, so nothing can boot it.
    pub(crate) layers: Option<Layers>,
    pub(crate) snapshots: Vec<String>,
    /// The image that it was copied from, or that its instance was launched from.
    pub(crate) source: Option<Key>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) instances: HashMap<Key, Arc<Instance>>,
    /// Instances that ended for good: moto would happily start them again.
    pub(crate) terminated: HashSet<Key>,
    pub(crate) addresses: HashMap<Key, Ipv4Addr>,
    pub(crate) images: BTreeMap<Key, Image>,
    pub(crate) snapshots: BTreeMap<Key, Layers>,
    /// What EC2 says of the snapshots of a copied image.
    pub(crate) copied_snapshots: BTreeMap<Key, String>,
    layers: BTreeSet<LayerId>,
    next_layer: u64,
}

impl Registry {
    /// A name for a new layer. It is in use from now on only if an image, snapshot or instance says so.
    pub(crate) fn new_layer(&mut self) -> LayerId {
        self.next_layer += 1;
        LayerId(self.next_layer)
    }

    /// The layer's files exist from now on.
    pub(crate) fn add_layer(&mut self, layer: LayerId) {
        self.layers.insert(layer);
    }

    /// Takes out the layers that no image, snapshot or instance stands on, for their files to be removed.
    pub(crate) fn take_unused_layers(&mut self) -> Vec<LayerId> {
        let used: HashSet<LayerId> = self
            .images
            .values()
            .filter_map(|image| image.layers.clone())
            .chain(self.snapshots.values().cloned())
            .chain(self.instances.values().map(|instance| instance.layers()))
            .flatten()
            .collect();
        let unused = self.layers.iter().filter(|layer| !used.contains(layer)).copied().collect();
        self.layers.retain(|layer| used.contains(layer));
        unused
    }

    /// The snapshot is deleted.
    pub(crate) fn forget_snapshot(&mut self, key: &Key) {
        self.snapshots.remove(key);
        self.copied_snapshots.remove(key);
    }

    /// Whether an address is some instance's.
    pub(crate) fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.addresses.values().any(|taken| *taken == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: &[LayerId]) -> Image {
        Image { layers: Some(layers.to_vec()), snapshots: Vec::new(), source: None }
    }

    #[test]
    fn a_layer_goes_with_the_last_that_stands_on_it() {
        let mut registry = Registry::default();
        let (lower, upper) = (registry.new_layer(), registry.new_layer());
        registry.add_layer(lower);
        registry.add_layer(upper);
        let (first, second) = (Key::new("r", "ami-1"), Key::new("r", "ami-2"));
        registry.images.insert(first.clone(), image(&[lower]));
        registry.images.insert(second.clone(), image(&[upper, lower]));
        registry.snapshots.insert(Key::new("r", "snap-1"), vec![lower]);

        registry.images.remove(&first);
        registry.snapshots.clear();
        assert_eq!(registry.take_unused_layers(), []);
        registry.images.remove(&second);
        assert_eq!(registry.take_unused_layers(), [lower, upper]);
        assert_eq!(registry.take_unused_layers(), []);
    }

    #[test]
    fn a_snapshot_keeps_its_layer_after_the_image_is_deregistered() {
        let mut registry = Registry::default();
        let layer = registry.new_layer();
        registry.add_layer(layer);
        registry.snapshots.insert(Key::new("r", "snap-1"), vec![layer]);
        assert_eq!(registry.take_unused_layers(), []);
        registry.snapshots.clear();
        assert_eq!(registry.take_unused_layers(), [layer]);
    }
}
