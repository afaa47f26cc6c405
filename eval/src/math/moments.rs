//! Mean and scatter of feature rows, in float64, as the rows come. Parts that were made apart merge
//! exactly (Chan, Golub and LeVeque, 1983).

use tch::{Device, Kind, Tensor};

use crate::math::features::{at_least, rows, same_dimension};
use crate::{Error, Result};

/// `n` rows' mean (D) and scatter `M = Σ (x - mean)(x - mean)ᵀ` (D, D).
#[derive(Debug)]
pub struct Moments {
    n: u64,
    mean: Tensor,
    /// (D, D); only the upper triangle is meant.
    scatter: Tensor,
}

/// A mean (D) and a covariance (D, D), float64: what the Fréchet distance compares.
#[derive(Debug)]
pub struct Statistics {
    /// (D).
    pub mean: Tensor,
    /// (D, D).
    pub covariance: Tensor,
}

impl Moments {
    /// Moments before the first row.
    pub fn new(dimension: i64) -> Self {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, Device::Cpu));
        Moments { n: 0, mean: zeros(&[dimension]), scatter: zeros(&[dimension, dimension]) }
    }

    /// Moments of rows (N, D).
    pub fn of(features: &Tensor) -> Result<Self> {
        let mut moments = Moments::new(rows(features)?.size()[1]);
        moments.update(features)?;
        Ok(moments)
    }

    /// Moments as stored, by the scatter's upper triangle, row by row.
    pub(crate) fn from_parts(n: u64, mean: Tensor, upper: &Tensor) -> Result<Self> {
        let d = mean.numel() as i64;
        same_dimension(d * (d + 1) / 2, upper.numel() as i64)?;
        let mut moments = Moments::new(d);
        let at = Tensor::triu_indices(d, d, 0, (Kind::Int64, Device::Cpu));
        let _ = moments.scatter.index_put_(&[Some(at.get(0)), Some(at.get(1))], upper, false);
        moments.n = n;
        moments.mean = mean;
        Ok(moments)
    }

    /// The scatter's upper triangle, row by row.
    pub(crate) fn upper(&self) -> Tensor {
        let d = self.dimension();
        let at = Tensor::triu_indices(d, d, 0, (Kind::Int64, Device::Cpu));
        self.scatter.index(&[Some(at.get(0)), Some(at.get(1))])
    }

    /// Adds rows (B, D).
    pub fn update(&mut self, features: &Tensor) -> Result<()> {
        let x = rows(features)?;
        same_dimension(self.dimension(), x.size()[1])?;
        let n = x.size()[0];
        if n == 0 {
            return Ok(());
        }
        let mean = x.mean_dim([0i64].as_slice(), false, Kind::Double);
        self.add(n as u64, &mean, &(x - &mean));
        Ok(())
    }

    /// Adds the rows of other moments.
    pub fn merge(&mut self, other: &Moments) -> Result<()> {
        same_dimension(self.dimension(), other.dimension())?;
        if other.n > 0 {
            self.scatter += &other.scatter;
            self.add(
                other.n,
                &other.mean,
                &Tensor::zeros([0, self.dimension()], (Kind::Double, Device::Cpu)),
            );
        }
        Ok(())
    }

    /// Adds `n` rows of this mean, whose scatter is `centredᵀ centred`.
    fn add(&mut self, n: u64, mean: &Tensor, centred: &Tensor) {
        let total = self.n + n;
        let delta = mean - &self.mean;
        let between = (self.n as f64 * n as f64 / total as f64).sqrt();
        // One more row represents the distance between both means, so that one product does all.
        let factor = Tensor::cat(&[centred, &(&delta * between).unsqueeze(0)], 0); // (B + 1, D)
        let _ = self.scatter.addmm_(&factor.tr(), &factor);
        self.mean += delta * (n as f64 / total as f64);
        self.n = total;
    }

    /// Number of rows.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// D.
    pub fn dimension(&self) -> i64 {
        self.mean.numel() as i64
    }

    /// (D); zeros before the first row.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// The scatter matrix (D, D), made of its upper triangle: products are not symmetric to the last
    /// bit, and moments that were stored have no other.
    pub fn scatter(&self) -> Tensor {
        self.scatter.triu(0) + self.scatter.triu(1).tr()
    }

    /// Mean and unbiased covariance; needs two rows.
    pub fn statistics(&self) -> Result<Statistics> {
        at_least("a covariance", 2, self.n as i64)?;
        Ok(Statistics { mean: self.mean.copy(), covariance: self.scatter() / (self.n - 1) as f64 })
    }
}

impl Clone for Moments {
    fn clone(&self) -> Self {
        Moments { n: self.n, mean: self.mean.copy(), scatter: self.scatter.copy() }
    }
}

impl Clone for Statistics {
    fn clone(&self) -> Self {
        Statistics { mean: self.mean.copy(), covariance: self.covariance.copy() }
    }
}

impl Statistics {
    /// Checks shapes and that all is finite; symmetric halves are averaged.
    pub fn new(mean: &Tensor, covariance: &Tensor) -> Result<Self> {
        let (mean, covariance) = (mean.to_kind(Kind::Double), covariance.to_kind(Kind::Double));
        let (m, c) = (mean.size(), covariance.size());
        if m.len() != 1 || c != [m[0], m[0]] {
            return Err(Error::Statistics { mean: m, covariance: c });
        }
        let _ = (rows(&mean.unsqueeze(0))?, rows(&covariance)?); // all finite
        Ok(Statistics { mean, covariance: (&covariance + covariance.tr()) / 2.0 })
    }

    /// [`Statistics::new`] of what another program stored: also refuses a covariance that is none,
    /// not symmetric or with a negative variance in some direction. What rounding leaves
    /// (statistics are stored in float32, too) is let pass.
    ///
    /// # Errors
    /// They are no statistics; `names` are what the error calls the two.
    pub fn checked(mean: &Tensor, covariance: &Tensor, names: [&str; 2]) -> Result<Self> {
        /// Relative to the largest variance.
        const ROUNDING: f64 = 1e-5;
        let wrong = |which: usize, what: &'static str| {
            Err(Error::NotStatistics { name: names[which].to_owned(), what })
        };
        for (which, values) in [mean, covariance].into_iter().enumerate() {
            if !bool::try_from(values.isfinite().all())? {
                return wrong(which, "holds values that are not finite");
            }
        }
        let statistics = Statistics::new(mean, covariance)?;
        let given = covariance.to_kind(Kind::Double);
        let diagonal = given.diagonal(0, 0, 1);
        let rounding = ROUNDING * diagonal.max().double_value(&[]).max(f64::MIN_POSITIVE);
        if (&given - given.tr()).abs().max().double_value(&[]) > rounding {
            return wrong(1, "is not symmetric, as covariances are");
        }
        let raised =
            &statistics.covariance + Tensor::eye(diagonal.size()[0], (Kind::Double, Device::Cpu)) * rounding;
        // A Cholesky factor exists just where no eigenvalue is negative; `info` is the first minor
        // that has one.
        let (_, info) = raised.f_linalg_cholesky_ex(false, false)?;
        match info.int64_value(&[]) {
            0 => Ok(statistics),
            _ => wrong(1, "has negative variances, as no covariance has"),
        }
    }

    /// D.
    pub fn dimension(&self) -> i64 {
        self.mean.numel() as i64
    }
}
