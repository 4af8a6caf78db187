//! Every key that comes from the cluster secret: HKDF-SHA256 without salt, told apart by `info`.

use hkdf::Hkdf;
use sha2::Sha256;

const NETWORK_INFO: &str = "chorus/v1/network";
const AUDIT_INFO: &str = "chorus/v1/sentinel-audit";
const DEV_CLUSTER_INFO: &str = "chorus/v1/dev-cluster";

/// 32 bytes of HKDF-SHA256 (RFC 5869) without salt.
#[must_use]
pub fn hkdf32(secret: &[u8], info: &str) -> [u8; 32] {
    let mut key = [0; 32];
    // HKDF-SHA256 fails only above 255 * 32 bytes of output; 32 always fit.
    let fits = Hkdf::<Sha256>::new(None, secret).expand(info.as_bytes(), &mut key).is_ok();
    debug_assert!(fits);
    key
}

/// The pre-shared key of the libp2p network that belongs to a cluster secret.
#[must_use]
pub fn network_key(cluster_secret: &[u8]) -> [u8; 32] {
    hkdf32(cluster_secret, NETWORK_INFO)
}

/// The key of the hashes by which the sentinel's findings in a cluster are told apart.
#[must_use]
pub fn audit_key(cluster_secret: &[u8]) -> [u8; 32] {
    hkdf32(cluster_secret, AUDIT_INFO)
}

/// The cluster secret of a development cluster that was given none: agents of one licence find each other, and
/// whoever knows the licence id can join. Not for production.
#[must_use]
pub fn dev_cluster_secret(license_id: &str) -> [u8; 32] {
    hkdf32(license_id.as_bytes(), DEV_CLUSTER_INFO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, test case 3 (SHA-256, no salt, no info), its first 32 bytes.
    #[test]
    fn agrees_with_the_rfc() {
        assert_eq!(
            hex::encode(hkdf32(&[0x0b; 22], "")),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        );
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let secret = [7; 32];
        assert_ne!(network_key(&secret), hkdf32(&secret, "chorus/v1/role/admin"));
        assert_ne!(dev_cluster_secret("lic-1"), dev_cluster_secret("lic-2"));
        assert_ne!(network_key(&secret), audit_key(&secret));
        assert_eq!(network_key(&secret), hkdf32(&secret, "chorus/v1/network"));
    }
}
